"""Messages into records and back: pure functions, shared by the blocking and the asynchronous client."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import UTC
from typing import Any

import numpy as np
from google.rpc import status_pb2
from numpy.typing import NDArray

from lookalike import _shared, records
from lookalike.errors import FailedPrecondition, InternalError, InvalidArgument, LookalikeError
from lookalike.v1 import (
    collections_pb2,
    items_pb2,
    models_pb2,
    search_pb2,
    types_pb2,
)


def matrix(tensor: types_pb2.Tensor) -> NDArray[np.float32]:
    """A float32 tensor of any shape as a read-only view of the message's bytes."""
    if tensor.dtype != types_pb2.DATA_TYPE_FLOAT32:
        raise InternalError("the server sent descriptors of another type than float32", "PROTOCOL")
    return np.frombuffer(tensor.data, "<f4").reshape(tuple(tensor.shape))


def descriptor_to_wire(descriptor: object) -> types_pb2.Tensor:
    """One descriptor [d] of any numeric type. Raises InvalidArgument when it is not a vector of numbers."""
    try:
        with np.errstate(over="ignore"):  # infinity is refused like NaN
            given = np.asarray(descriptor)
            vector = np.empty(0, "<f4") if np.iscomplexobj(given) else given.astype("<f4", copy=False)
    except (TypeError, ValueError):
        vector = np.empty(0, "<f4")
    if vector.ndim != 1 or not vector.size:
        raise InvalidArgument("a descriptor is a vector of numbers, [dimension]", "DESCRIPTOR_INVALID")
    return types_pb2.Tensor(dtype=types_pb2.DATA_TYPE_FLOAT32, shape=vector.shape, data=vector.tobytes())


def attributes_to_json(attributes: Mapping[str, Any] | None) -> str:
    """Numpy's numbers are taken as numbers. Raises InvalidArgument for what JSON cannot hold, as NaN."""
    if not attributes:
        return ""
    if not isinstance(attributes, Mapping):
        raise InvalidArgument(
            f"attributes are a dict, not {type(attributes).__name__}: {attributes!r}", "ATTRIBUTES_INVALID"
        )
    try:
        return json.dumps(dict(attributes), ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"attributes cannot be written as JSON: {error}", "ATTRIBUTES_INVALID"
        ) from None


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def attributes_from_json(text: str) -> dict[str, Any]:
    return json.loads(text) if text else {}


def failure(source: str, item_id: str, error: LookalikeError) -> records.Failure:
    # The source says more than the place in a message that the caller never saw.
    message = error.message.removeprefix(f"{error.metadata.get('field', '')}: ")
    return records.Failure(source, item_id, error.reason, message, error.code)


def error_of_failure(failed: records.Failure) -> LookalikeError:
    """The error to raise where a failure is not to be reported."""
    return _shared.error_class(failed.status)(f"{failed.source}: {failed.message}", failed.reason)


def failure_from_status(source: str, item_id: str, status: status_pb2.Status) -> records.Failure:
    return failure(source, item_id, _shared.error_from_status(status))


def space(wire: types_pb2.EmbeddingSpace) -> records.EmbeddingSpace:
    metric = types_pb2.Metric.Name(wire.metric).removeprefix("METRIC_").lower()
    return records.EmbeddingSpace(wire.id, wire.dimension, metric, wire.recipe)


def server_info(wire: models_pb2.GetServerInfoResponse) -> records.ServerInfo:
    limits = records.Limits(
        wire.limits.max_images_per_message,
        wire.limits.max_message_bytes,
        wire.limits.max_image_bytes,
        wire.limits.max_image_pixels,
        wire.limits.max_k,
    )
    return records.ServerInfo(wire.version, wire.device, limits)


def recipe(wire: models_pb2.Recipe) -> records.RecipeInfo:
    return records.RecipeInfo(
        wire.name,
        wire.backbone,
        tuple(records.TapInfo(tap.node, tap.pooling) for tap in wire.taps),
        wire.input_height,
        wire.input_width,
        space(wire.space),
        wire.duplicate_threshold,
        wire.runtime,
        wire.ready or not wire.runtime,
    )


def backbone(wire: models_pb2.Backbone) -> records.BackboneInfo:
    return records.BackboneInfo(wire.name, wire.weights, wire.loaded)


def node(wire: models_pb2.Node) -> records.NodeInfo:
    return records.NodeInfo(
        wire.name,
        wire.operation,
        tuple(wire.shape),
        wire.dtype,
        wire.stride,
        wire.parameters,
        wire.flops,
        wire.cumulative_flops,
    )


def verify_report(wire: collections_pb2.VerifyCollectionResponse) -> records.VerifyReport:
    return records.VerifyReport(tuple(wire.problems), wire.item_count, wire.segment_count, wire.sequence)


def collection_info(wire: collections_pb2.Collection) -> records.CollectionInfo:
    created = wire.create_time.ToDatetime(tzinfo=UTC)
    return records.CollectionInfo(
        wire.name,
        wire.recipe,
        space(wire.space),
        wire.item_count,
        wire.sequence,
        created,
        index_info(wire.index) if wire.HasField("index") else None,
        tuple(wire.attribute_indexes),
        tuple(wire.aliases),
    )


def names(given: str | Iterable[str]) -> list[str]:
    """A name alone is one name, not its letters."""
    return [given] if isinstance(given, str) else list(given)


def index_info(wire: collections_pb2.IndexStatus) -> records.IndexInfo:
    return records.IndexInfo(
        wire.settings.kind,
        wire.settings.target_recall,
        wire.factory,
        wire.recall,
        wire.indexed_count,
        wire.building,
        wire.memory_bytes,
        wire.disk_bytes,
    )


def index_settings(kind: str, target_recall: float, storage: str) -> collections_pb2.IndexSettings:
    return collections_pb2.IndexSettings(kind=kind, target_recall=target_recall, storage=storage)


def index_estimate(wire: collections_pb2.EstimateIndexResponse) -> records.IndexEstimate:
    return records.IndexEstimate(wire.factory, wire.memory_bytes, wire.disk_bytes)


def check_recipe(info: records.CollectionInfo, recipe: str) -> None:
    """Raises FailedPrecondition when a collection belongs to another recipe than was asked for."""
    if recipe and info.recipe != recipe:
        raise FailedPrecondition(
            f"collection {info.name!r} has recipe {info.recipe!r}, not {recipe!r}; choose another name",
            "SPACE_MISMATCH",
        )


def item(wire: items_pb2.Item) -> records.Item:
    descriptor = matrix(wire.descriptor) if wire.HasField("descriptor") else None
    return records.Item(
        wire.id, attributes_from_json(wire.attributes_json), wire.digest, wire.sequence, descriptor
    )


def hits(wire: search_pb2.QueryResult, answer: search_pb2.SearchResponse) -> records.Hits:
    found = records.Hits(
        records.Hit(
            hit.id,
            hit.score,
            attributes_from_json(hit.attributes_json),
            json.loads(hit.group_json) if hit.group_json else None,
        )
        for hit in wire.hits
    )
    found.more = wire.more
    found.sequence = answer.sequence
    if answer.HasField("explanation"):
        found.explanation = explanation(answer.explanation)
    return found


def explanation(wire: search_pb2.Explanation) -> records.Explanation:
    return records.Explanation(
        **{field.name: getattr(wire, field.name) for field in fields(records.Explanation)}
    )
