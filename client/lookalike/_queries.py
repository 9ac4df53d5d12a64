"""What to look for, as messages: pure functions, shared by the blocking and the asynchronous client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, TypeVar

import numpy as np

from lookalike import _bulk, _entries, _shared, _wire, images
from lookalike.errors import InvalidArgument
from lookalike.records import Hits, Limits
from lookalike.v1 import search_pb2

T = TypeVar("T")
NamedQuery = tuple[str, search_pb2.Query]
"""A query, and how messages name it."""


class SearchOptions(TypedDict, total=False):
    """What a search may be given besides its query; `Collection.search` says what each means."""

    k: int
    min_score: float | None
    min_precision: float | None
    where: str
    range: bool
    group_by: str
    group_size: int
    min_sequence: int
    explain: bool
    exact: bool
    views: str
    normalize: bool
    rerank: str


_VIEWS = {"": (0, 1), "grid": (search_pb2.VIEWS_GRID, 10), "pasted": (search_pb2.VIEWS_PASTED, 3)}
"""The number on the wire, and how many images a query counts for."""
_RERANKS = {
    "": search_pb2.RERANK_UNSPECIFIED,
    "query_expansion": search_pb2.RERANK_QUERY_EXPANSION,
    "k_reciprocal": search_pb2.RERANK_K_RECIPROCAL,
}


def queries(image: Any, vector: Any, item_id: Any, limits: Limits) -> tuple[list[NamedQuery], bool]:
    """The queries, and whether the caller gave a list of them. Raises InvalidArgument for unusable ones."""
    if sum(value is not None for value in (image, vector, item_id)) != 1:
        raise InvalidArgument(
            "a search needs exactly one query: give a picture, vector= or id=", "ARGUMENT_INVALID"
        )
    if isinstance(image, np.ndarray) and image.ndim == 1:
        raise InvalidArgument("this is no picture: give a descriptor as vector=", "ARGUMENT_INVALID")
    if image is not None:
        several = isinstance(image, Iterable) and not images.is_image(image)
        return [_of_image(e) for e in _entries.image_entries(image if several else [image], limits)], several
    if vector is not None:
        several = isinstance(vector, list | tuple) and any(np.ndim(row) for row in vector)
        return [_of_vector(i, row) for i, row in enumerate(vector if several else [vector])], several
    several = not isinstance(item_id, str)
    return [(one, search_pb2.Query(item_id=one)) for one in (item_id if several else [item_id])], several


def _of_image(entry: _entries.Entry[Any]) -> NamedQuery:
    if entry.error is not None:
        raise _wire.error_of_failure(_bulk.entry_failure(entry))
    return entry.source, search_pb2.Query(image=entry.payload)


def _of_vector(index: int, vector: Any) -> NamedQuery:
    return f"vectors[{index}]", search_pb2.Query(descriptor=_wire.descriptor_to_wire(vector))


def requests(
    collection: str,
    named: Sequence[NamedQuery],
    options: SearchOptions,
    limits: Limits,
) -> Iterator[search_pb2.SearchRequest]:
    """The queries in as few messages as the server's limits allow, at least one."""
    _check(options)
    views, weight = _known("views", options.get("views", ""), _VIEWS)
    rerank = _known("rerank", options.get("rerank", ""), _RERANKS)
    most = max(1, limits.max_images_per_message // weight)
    limits = replace(limits, max_images_per_message=most)
    default: dict[str, Any] = {"k": 0 if options.get("range") else 10}
    entries = (_entries.Entry(i, source, "", query) for i, (source, query) in enumerate(named))
    for chunk in _bulk.cut(entries, limits):
        yield search_pb2.SearchRequest(
            collection=collection,
            queries=_sendable(chunk),
            **default | {**options, "views": views, "rerank": rerank},
        )


def _check(options: SearchOptions) -> None:
    """Raises TypeError for what is no option, and InvalidArgument for values that none can have."""
    value: Any
    for name, value in options.items():
        if name not in SearchOptions.__annotations__:
            known = ", ".join(SearchOptions.__annotations__)
            raise TypeError(f"a search has no option {name!r}; it has {known}")
        if name in ("k", "group_size") and isinstance(value, int) and value < 1:
            raise InvalidArgument(f"{name} is at least 1, not {value}", "ARGUMENT_INVALID")
        if name not in ("views", "rerank"):
            try:
                search_pb2.SearchRequest(**{name: value})
            except (TypeError, ValueError):
                raise InvalidArgument(f"{name} cannot be {value!r}", "ARGUMENT_INVALID") from None


def _known(name: str, value: str, values: Mapping[str, T]) -> T:
    if value not in values:
        known = ", ".join(repr(one) for one in values if one)
        raise InvalidArgument(f"{name} is {value!r}; it is one of {known}, or ''", "ARGUMENT_INVALID")
    return values[value]


def _sendable(chunk: _bulk.Chunk[search_pb2.Query]) -> list[search_pb2.Query]:
    for entry in chunk.entries:
        if entry.error is not None:
            raise _wire.error_of_failure(_bulk.entry_failure(entry))
    return chunk.payloads


def hits(answer: search_pb2.SearchResponse, named: Sequence[NamedQuery]) -> list[Hits]:
    """The hits of each query. Raises the error of the first query that could not be answered."""
    for (source, _), result in zip(named, answer.results, strict=False):
        if result.status.code:
            raise _shared.error_from_status(result.status, source)
    return [_wire.hits(result, answer) for result in answer.results]
