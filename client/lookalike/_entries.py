"""What a user gives, one entry for each image or item: what is sent of it, or why nothing is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from lookalike import _wire, images
from lookalike.errors import InvalidArgument, LookalikeError
from lookalike.records import Limits
from lookalike.v1 import items_pb2

Payload = TypeVar("Payload", bound=Message)


@dataclass(frozen=True, slots=True)
class Entry(Generic[Payload]):
    """One image or item: what is sent of it, or why nothing is."""

    index: int
    source: str
    id: str
    payload: Payload | None
    error: LookalikeError | None = None


def image_entries(pictures: Iterable[images.ImageLike], limits: Limits) -> Iterator[Entry[Any]]:
    for index, picture in enumerate(_many(pictures)):
        yield image_entry(index, picture, limits)


def image_entry(index: int, picture: images.ImageLike, limits: Limits) -> Entry[Any]:
    source = images.source_of(picture, index)
    try:
        return Entry(index, source, "", images.image_to_wire(picture, limits.max_image_bytes))
    except LookalikeError as error:
        return Entry(index, source, "", None, error)


def item_entries(
    pictures: Iterable[images.ImageLike],
    ids: Iterable[str] | None,
    attributes: Iterable[Mapping[str, Any] | None] | None,
    limits: Limits,
) -> Iterator[Entry[items_pb2.NewItem]]:
    """Items of images. Without `ids`, an item's id is its file's absolute path."""
    for index, (picture, item_id, row) in enumerate(_rows(_many(pictures), ids, attributes)):
        entry = image_entry(index, picture, limits)
        chosen = _id_of(picture, index) if ids is None else item_id
        yield item_entry(entry, str(chosen), row, "image")


def vector_entries(
    ids: Iterable[str], vectors: Iterable[object], attributes: Iterable[Mapping[str, Any] | None] | None
) -> Iterator[Entry[items_pb2.NewItem]]:
    """Items of descriptors that are ready."""
    for index, (vector, item_id, row) in enumerate(_rows(vectors, ids, attributes)):
        try:
            entry: Entry[Any] = Entry(index, f"vectors[{index}]", "", _wire.descriptor_to_wire(vector))
        except LookalikeError as error:
            entry = Entry(index, f"vectors[{index}]", "", None, error)
        yield item_entry(entry, str(item_id), row, "descriptor")


def item_entry(
    entry: Entry[Any], item_id: str, row: Mapping[str, Any] | None, content: str
) -> Entry[items_pb2.NewItem]:
    try:
        text = _wire.attributes_to_json(row)
    except LookalikeError as error:
        return Entry(entry.index, entry.source, item_id, None, entry.error or error)
    if entry.payload is None:
        return Entry(entry.index, entry.source, item_id, None, entry.error)
    try:
        item = items_pb2.NewItem(id=item_id, attributes_json=text, **{content: entry.payload})
    except UnicodeEncodeError:  # half characters, as in file names that are no UTF-8
        problem = f"the id or an attribute of {item_id!r} is no Unicode text"
        return Entry(entry.index, entry.source, item_id, None, InvalidArgument(problem, "ARGUMENT_INVALID"))
    return Entry(entry.index, entry.source, item_id, item)


def _many(pictures: Iterable[images.ImageLike]) -> Iterable[images.ImageLike]:
    if images.is_image(pictures):
        raise InvalidArgument(
            "expected a list of pictures, got a single one: put it into [ ]", "ARGUMENT_INVALID"
        )
    return pictures


def _id_of(picture: images.ImageLike, index: int) -> str:
    if not isinstance(picture, str | os.PathLike):
        raise InvalidArgument(
            f"images[{index}] is not a file, so it has no name to be its id: give ids=[...]",
            "ARGUMENT_INVALID",
        )
    return str(Path(picture).absolute())


def _rows(
    firsts: Iterable[Any], ids: Iterable[str] | None, attributes: Iterable[Mapping[str, Any] | None] | None
) -> Iterator[tuple[Any, str, Mapping[str, Any] | None]]:
    """The three lists side by side. Raises InvalidArgument when their lengths differ."""
    if isinstance(ids, str) or isinstance(attributes, Mapping):
        raise InvalidArgument(
            "ids and attributes are lists, with one entry for each item", "ARGUMENT_INVALID"
        )
    columns: list[object] = [firsts, ids, attributes]
    if len({len(column) for column in columns if isinstance(column, Sized)}) > 1:
        raise _uneven()
    names = repeat("") if ids is None else iter(ids)
    rows = repeat(None) if attributes is None else iter(attributes)
    for first in firsts:
        try:
            yield first, next(names), next(rows)
        except StopIteration:
            raise _uneven() from None


def _uneven() -> InvalidArgument:
    return InvalidArgument("ids and attributes must have one entry for each item", "ARGUMENT_INVALID")
