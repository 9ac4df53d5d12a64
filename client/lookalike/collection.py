"""One collection of a server, as the blocking client sees it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack, overload

import grpc
import numpy as np
from numpy.typing import NDArray

from lookalike import _bulk, _entries, _queries, _shared, _streams, _wire
from lookalike._backups import BackupFile
from lookalike._calibrations import CalibrationCalls
from lookalike._jobs import DuplicateCalls
from lookalike._queries import SearchOptions
from lookalike.errors import LookalikeError
from lookalike.images import ImageLike
from lookalike.progress import Progress, Tally, observer
from lookalike.records import (
    AddReport,
    CollectionInfo,
    Hit,
    Hits,
    Item,
    VerifyReport,
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


class Collection(DuplicateCalls, CalibrationCalls):
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
        deadline = _shared.Deadline(timeout)
        answers = _streams.exchange(
            lambda requests: self._items.UpsertItemsStream(requests, timeout=deadline.left()),
            lambda chunk: _bulk.upsert_request(chunk, self.name),
            _bulk.cut(entries, self._client.limits()),
            self._client.target,
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

    @overload
    def search(
        self,
        query: ImageLike | None = None,
        *,
        vector: Sequence[float] | NDArray[Any] | None = None,
        id: str | None = None,
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> Hits: ...

    @overload
    def search(
        self,
        query: list[Any] | tuple[Any, ...] | None = None,
        *,
        vector: Sequence[NDArray[Any]] | None = None,
        id: list[str] | tuple[str, ...] | None = None,
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> list[Hits]: ...

    def search(
        self,
        query: Any = None,
        *,
        vector: Any = None,
        id: Any = None,  # noqa: A002 - the word that the API uses for it
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> Any:
        """The nearest items of a picture, a vector or an item of the collection, nearest first.

        Exactly one of `query` (a picture), `vector` ([dimension]) and `id` is given. A list of pictures, of
        vectors or of ids is several queries at once, and returns a list of lists.

        Args:
            k: most hits, 10 unless told otherwise; of groups with `group_by`.
            min_score: only hits at least this similar.
            min_precision: only hits whose score means at least this precision, by the collection's
                calibration; FailedPrecondition (NOT_CALIBRATED) when it has none for it.
            where: only items whose attributes fit, as "price < 100 and category = 'hat'".
            range: all hits of at least `min_score` or `min_precision`, up to `k` or 10,000 of them.
            group_by: an attribute, as "product.id": of items with equal values only the nearest are hits.
            group_size: most hits of each group; 1 unless told otherwise.
            min_sequence: waits until the collection has reached this number, as a report's `sequence`.
            exact: compares with every item, where else an approximate index would be asked.
            explain: sets `explanation` of what is returned.
            views: "pasted" looks for pictures inside the query picture as well, "grid" at nine parts of it.
            normalize: subtracts from scores how alike the query is to the collection's background, so that
                scores of different queries can be compared; see `set_background`.
            rerank: "query_expansion" or "k_reciprocal" orders the hits anew by what their neighbours say.
        """
        limits = self._client.limits()
        queries, several = _queries.queries(query, vector, id, limits)
        found: list[Hits] = []
        for request in _queries.requests(self.name, queries, options, limits):
            answer = self._client._call(self._search.Search, request, timeout)
            found += _queries.hits(answer, queries[len(found) :])
        return found if several else found[0]

    def browse(
        self,
        query: ImageLike | None = None,
        *,
        vector: Sequence[float] | NDArray[Any] | None = None,
        id: str | None = None,  # noqa: A002
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> Iterator[Hit]:
        """The hits of one query from the nearest on, up to 10,000, by pages of `k` as they are read."""
        limits = self._client.limits()
        queries, _ = _queries.queries(query, vector, id, limits)
        (request,) = _queries.requests(self.name, queries[:1], options, limits)
        while True:
            answer = self._client._call(self._search.Search, request, timeout)
            yield from _queries.hits(answer, queries)[0]
            request.page_token = answer.results[0].next_page_token
            if not request.page_token:
                return

    def configure_index(
        self,
        kind: str = "auto",
        *,
        target_recall: float = 0.98,
        storage: str = "fp16",
        timeout: float | None = None,
    ) -> CollectionInfo:
        """Chooses how searches go through the collection; the index is made in the background.

        Args:
            kind: "auto", "exact", or a factory string of FAISS, as "HNSW32,SQ8" or "IVF4096,PQ64x4fs".
            target_recall: share of the ten nearest that searches should find, 0.5 to 1.
            storage: of descriptors in an index of "auto": "fp16", "int8" or "pq".

        `info().index` tells when it is there, and what recall was measured.
        """
        request = collections_pb2.ConfigureIndexRequest(
            name=self.name, settings=_wire.index_settings(kind, target_recall, storage)
        )
        answer = self._client._call(self._collections.ConfigureIndex, request, timeout)
        return _wire.collection_info(answer.collection)

    def set_attribute_indexes(
        self, attributes: Iterable[str], *, timeout: float | None = None
    ) -> CollectionInfo:
        """Chooses the attributes that filters find through an index, as "price" or "size.width".

        In place of those before; it returns when the indexes are made. Writes wait meanwhile.
        """
        request = collections_pb2.SetAttributeIndexesRequest(
            name=self.name, attribute_indexes=_wire.names(attributes)
        )
        answer = self._client._call(self._collections.SetAttributeIndexes, request, timeout)
        return _wire.collection_info(answer.collection)

    def verify(self, *, timeout: float | None = None) -> VerifyReport:
        """Has the server read everything it stores of this collection, and compare all copies of it."""
        request = collections_pb2.VerifyCollectionRequest(name=self.name)
        answer = self._client._call(self._collections.VerifyCollection, request, timeout)
        return _wire.verify_report(answer)

    def backup(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> int:
        """Copies the collection, as it is now, to a new file here, while others go on writing.

        Returns the number of the last write in it. The file is whole or not there. `Client.restore` makes a
        collection of it. Raises FileExistsError when the file is there already.
        """
        request = collections_pb2.BackupCollectionRequest(name=self.name)
        with BackupFile(path) as file:
            try:
                for piece in self._collections.BackupCollection(request, timeout=timeout):
                    file.take(piece)
            except grpc.RpcError as error:
                raise _shared.error_of(error, self._client.target) from None
        return file.sequence

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
