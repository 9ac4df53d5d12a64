"""What items and queries share: descriptors of the collection's space, and the paths of their fields."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import ParamSpec, TypeVar

from lookalike.v1 import types_pb2
from lookalike_extractor.errors import LookalikeError

from lookalike_server.collection import Collection
from lookalike_server.engine import Engine, Outcome, Source
from lookalike_server.errors import ArgumentInvalid, MessageTooLarge, SpaceMismatch
from lookalike_server.rows import Descriptor, unit
from lookalike_server.wire import tensor_to_array

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(workers: Executor, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs a call that blocks."""
    return await asyncio.get_running_loop().run_in_executor(workers, partial(call, *args, **kwargs))


def recipe_for(collection: Collection, engine: Engine) -> str:
    """Returns the recipe of this server whose space is the collection's. Raises SpaceMismatch."""
    for name, space in engine.spaces.items():
        if space.id == collection.space.id:
            return name
    recipe = collection.space.recipe
    served = engine.spaces.get(recipe)
    now = f"makes descriptors of space {served.id}" if served else "is not served"
    raise SpaceMismatch(
        f"Collection {collection.name!r} holds descriptors of space {collection.space.id}, but recipe "
        f"{recipe!r} {now} here, so images cannot be compared with its items. It can still be read, and "
        "searched by descriptor and id. To go on with images, embed them into a new collection, or serve the "
        "recipe as it was.",
        collection=collection.name,
        collection_space=collection.space.id,
        recipe_space=served.id if served else "",
    )


def check_space(collection: Collection, space_id: str, field: str) -> None:
    """Raises SpaceMismatch when a descriptor says that it is of another space than the collection's."""
    if space_id and space_id != collection.space.id:
        raise SpaceMismatch(
            f"{field} is of space {space_id}; collection {collection.name!r} holds descriptors of space "
            f"{collection.space.id}.",
            field=field,
            collection_space=collection.space.id,
            descriptor_space=space_id,
        )


def descriptor_from_wire(tensor: types_pb2.Tensor, collection: Collection, field: str) -> Descriptor:
    """Returns the descriptor float32 [d], of length 1. Raises ArgumentInvalid or DescriptorInvalid."""
    if tensor.dtype != types_pb2.DATA_TYPE_FLOAT32:
        raise ArgumentInvalid(f"{field}.dtype must be DATA_TYPE_FLOAT32.", field=f"{field}.dtype")
    descriptor = tensor_to_array(tensor, field)
    collection.check_dimension(descriptor, field)
    return unit(descriptor)


async def embedded(
    engine: Engine, collection: Collection, images: Sequence[Source], *, wait: bool
) -> list[tuple[Descriptor, Outcome] | LookalikeError]:
    """Returns each image's descriptor in the collection's space and its outcome, or why it has none."""
    if not images:
        return []
    try:
        recipe = recipe_for(collection, engine)
    except SpaceMismatch as error:
        return [error] * len(images)
    outcomes = await engine.embed(images, [recipe], wait=wait)
    return [outcome.error or (outcome.descriptors[recipe], outcome) for outcome in outcomes]


def check_count(count: int, most: int, field: str) -> None:
    """Raises unless a list of a request holds from 1 to `most` elements."""
    if not count:
        raise ArgumentInvalid(f"{field} is empty; send at least one.", field=field)
    if count > most:
        raise MessageTooLarge(f"{field} holds {count}; send at most {most}.", field=field)


def named(error: LookalikeError, path: str, part: str = "") -> LookalikeError:
    """Returns the error with the path of the element it belongs to, as "items[3].image"."""
    field = error.metadata.get("field", part)
    if field.startswith(path):
        return error
    field = f"{path}.{field}" if field else path
    return type(error)(f"{field}: {error.message}", **{**error.metadata, "field": field})
