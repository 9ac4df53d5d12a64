"""One collection of a server, as the blocking client sees it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from lookalike import _bulk, _entries, _streams, _wire
from lookalike._calibrations import CalibrationCalls
from lookalike._jobs import DuplicateCalls
from lookalike._searching import SearchCalls
from lookalike._upkeep import UpkeepCalls
from lookalike.errors import LookalikeError
from lookalike.images import ImageLike
from lookalike.progress import Progress, Tally, observer
from lookalike.records import (
    AddReport,
    CollectionInfo,
    Item,
)
from lookalike.v1 import (
    calibration_pb2_grpc,
    collections_pb2,
    collections_pb2_grpc,
    duplicates_pb2_grpc,
    items_pb2,
    items_pb2_grpc,
    search_pb2_grpc,
)

if TYPE_CHECKING:
    from lookalike.client import Client

PAGE = 1000  # the server's limit for ids and items in one call


class Collection(SearchCalls, UpkeepCalls, DuplicateCalls, CalibrationCalls):
    """A named set of items whose descriptors are all of one embedding space. Made by `Client`.

    It holds nothing itself: every method asks the server.
    """

    def __init__(self, client: Client, name: str) -> None:
        channel = client._channel
        if channel is None:
            raise ValueError(f"{client!r} is closed")
        self.name = name
        self._client = client
        self._collections = collections_pb2_grpc.CollectionServiceStub(channel)
        self._items = items_pb2_grpc.ItemServiceStub(channel)
        self._search = search_pb2_grpc.SearchServiceStub(channel)
        self._duplicates = duplicates_pb2_grpc.DuplicateServiceStub(channel)
        self._calibration = calibration_pb2_grpc.CalibrationServiceStub(channel)

    def __repr__(self) -> str:
        return f"Collection({self.name!r}, {self._client.target!r})"

    def info(self, *, timeout: float | None = None) -> CollectionInfo:
        """Its recipe, space, number of items and last write."""
        request = collections_pb2.GetCollectionRequest(name=self.name)
        answer = self._client._call(self._collections.GetCollection, request, timeout)
        return _wire.collection_info(answer.collection)

    def add(
        self,
        images: Iterable[ImageLike],
        ids: Iterable[str] | None = None,
        attributes: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        progress: bool | Callable[[Progress], None] = False,
        timeout: float | None = None,
    ) -> AddReport:
        """Writes pictures as items, replacing those whose ids are there already.

        Passing troubles are retried, so what the report counts as added is on disk. A picture that cannot be
        used fails alone and is named in the report.

        Args:
            images: paths, bytes, PIL images or uint8 arrays; may be a generator, some 64 are read ahead.
            ids: one for each image. Without it, the absolute path of each file.
            attributes: a dict for each image, or None.
            progress: True shows a line on stderr; a function is called with a `Progress` now and then.

        Raises the error of a server that stays away; its `report` tells what was written before.
        """
        limits = self._client.limits()
        entries = _entries.item_entries(images, ids, attributes, limits)
        return self._write(entries, total_of(images), progress, timeout)

    def upsert(
        self,
        ids: Iterable[str],
        vectors: Iterable[object],
        attributes: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        progress: bool | Callable[[Progress], None] = False,
        timeout: float | None = None,
    ) -> AddReport:
        """Writes descriptors that are ready, [n, dimension] or a list of vectors; else like `add`."""
        entries = _entries.vector_entries(ids, vectors, attributes)
        return self._write(entries, total_of(vectors), progress, timeout)

    def _write(
        self,
        entries: Iterator[_entries.Entry[items_pb2.NewItem]],
        total: int | None,
        progress: bool | Callable[[Progress], None],
        timeout: float | None,
    ) -> AddReport:
        tally = Tally(total)
        answers = _streams.exchange(
            self._items.UpsertItemsStream,
            lambda chunk: _bulk.upsert_request(chunk, self.name),
            _bulk.cut(entries, self._client.limits()),
            self._client.target,
            timeout,
        )
        try:
            with observer(progress) as show:
                for chunk, answer in answers:
                    tally.acknowledge(chunk, answer)
                    show(tally.progress())
        except LookalikeError as error:
            error.report = tally.report()
            raise
        return tally.report()

    @overload  # a str is also an iterable of str, but never meant so
    def get(  # type: ignore[overload-overlap]
        self, ids: str, *, descriptors: bool = False, timeout: float | None = None
    ) -> Item: ...

    @overload
    def get(
        self,
        ids: Iterable[str],
        *,
        allow_missing: bool = False,
        descriptors: bool = False,
        timeout: float | None = None,
    ) -> list[Item]: ...

    def get(
        self,
        ids: str | Iterable[str],
        *,
        allow_missing: bool = False,
        descriptors: bool = False,
        timeout: float | None = None,
    ) -> Item | list[Item]:
        """One item by its id, or a list of items in the order asked.

        Raises NotFound when one is not there; with `allow_missing` a list leaves it out.
        """
        if isinstance(ids, str):
            return self.get([ids], descriptors=descriptors, timeout=timeout)[0]
        items: list[Item] = []
        for page in pages(ids):
            request = items_pb2.GetItemsRequest(
                collection=self.name, ids=page, allow_missing=allow_missing, include_descriptors=descriptors
            )
            answer = self._client._call(self._items.GetItems, request, timeout)
            items += [_wire.item(item) for item in answer.items]
        return items

    def items(
        self,
        where: str = "",
        *,
        after_sequence: int = 0,
        descriptors: bool = False,
        timeout: float | None = None,
    ) -> Iterator[Item]:
        """All items that fit, in the order of their last write; fetched by pages, each within `timeout`.

        after_sequence: only those written after the write of that number, as `info().sequence` told it.
        """
        request = items_pb2.ListItemsRequest(
            collection=self.name,
            page_size=PAGE,
            where=where,
            include_descriptors=descriptors,
            after_sequence=after_sequence,
        )
        while True:
            answer = self._client._call(self._items.ListItems, request, timeout)
            yield from (_wire.item(item) for item in answer.items)
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    def delete(self, ids: str | Iterable[str], *, timeout: float | None = None) -> int:
        """Deletes items; returns how many were there. Ids that are not there are no error."""
        deleted = 0
        for page in pages([ids] if isinstance(ids, str) else ids):
            request = items_pb2.DeleteItemsRequest(collection=self.name, ids=page)
            deleted += self._client._call(self._items.DeleteItems, request, timeout).deleted
        return deleted


def pages(ids: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Ids in as few calls as the server allows."""
    rest = iter(ids)
    while page := tuple(itertools.islice(rest, PAGE)):
        yield page


def total_of(values: object) -> int | None:
    """How many there are, where that can be known beforehand."""
    return len(values) if isinstance(values, Sequence | np.ndarray) else None
