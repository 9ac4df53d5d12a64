"""One collection of a server, as the asynchronous client sees it: the twin of collection.py."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Unpack

import grpc

from lookalike import _aio_streams, _bulk, _entries, _queries, _shared, _wire
from lookalike._aio_jobs import AsyncDuplicateCalls
from lookalike._backups import BackupFile
from lookalike._calibrations import AsyncCalibrationCalls
from lookalike._queries import SearchOptions
from lookalike.collection import PAGE, pages, total_of
from lookalike.errors import LookalikeError
from lookalike.images import ImageLike
from lookalike.progress import Progress, Tally, observer
from lookalike.records import AddReport, CollectionInfo, Hit, Hits, Item, VerifyReport
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
    from lookalike.aio import AsyncClient


class AsyncCollection(AsyncDuplicateCalls, AsyncCalibrationCalls):
    """A named set of items. Made by `AsyncClient`; every method is that of `Collection`, to be awaited."""

    def __init__(self, client: AsyncClient, name: str) -> None:
        channel = client._channel
        if channel is None:
            raise ValueError(f"{client!r} is closed")
        self.name = name
        self._client = client
        self._collections = collections_pb2_grpc.CollectionServiceStub(channel)
        self._items: Any = items_pb2_grpc.ItemServiceStub(channel)
        self._search = search_pb2_grpc.SearchServiceStub(channel)
        self._duplicates = duplicates_pb2_grpc.DuplicateServiceStub(channel)
        self._calibration = calibration_pb2_grpc.CalibrationServiceStub(channel)

    def __repr__(self) -> str:
        return f"AsyncCollection({self.name!r}, {self._client.target!r})"

    async def info(self, *, timeout: float | None = None) -> CollectionInfo:
        """Like `Collection.info`."""
        request = collections_pb2.GetCollectionRequest(name=self.name)
        answer = await self._client._call(self._collections.GetCollection, request, timeout)
        return _wire.collection_info(answer.collection)

    async def add(
        self,
        images: Iterable[ImageLike],
        ids: Iterable[str] | None = None,
        attributes: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        progress: bool | Callable[[Progress], None] = False,
        timeout: float | None = None,
    ) -> AddReport:
        """Like `Collection.add`; `images` are taken in a thread."""
        entries = _entries.item_entries(images, ids, attributes, await self._client.limits())
        return await self._write(entries, total_of(images), progress, timeout)

    async def upsert(
        self,
        ids: Iterable[str],
        vectors: Iterable[object],
        attributes: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        progress: bool | Callable[[Progress], None] = False,
        timeout: float | None = None,
    ) -> AddReport:
        """Like `Collection.upsert`."""
        entries = _entries.vector_entries(ids, vectors, attributes)
        return await self._write(entries, total_of(vectors), progress, timeout)

    async def _write(
        self,
        entries: Iterator[_entries.Entry[items_pb2.NewItem]],
        total: int | None,
        progress: bool | Callable[[Progress], None],
        timeout: float | None,
    ) -> AddReport:
        tally = Tally(total)
        answers = _aio_streams.exchange(
            self._items.UpsertItemsStream,
            lambda chunk: _bulk.upsert_request(chunk, self.name),
            _bulk.cut(entries, await self._client.limits()),
            self._client.target,
            timeout,
        )
        try:
            with observer(progress) as show:
                async for chunk, answer in answers:
                    tally.acknowledge(chunk, answer)
                    show(tally.progress())
        except LookalikeError as error:
            error.report = tally.report()
            raise
        return tally.report()

    async def search(
        self,
        query: Any = None,
        *,
        vector: Any = None,
        id: Any = None,  # noqa: A002 - the word that the API uses for it
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Like `Collection.search`: hits, or a list of hits for a list of queries."""
        limits = await self._client.limits()
        queries, several = await asyncio.to_thread(_queries.queries, query, vector, id, limits)
        found: list[Hits] = []
        for request in _queries.requests(self.name, queries, options, limits):
            answer = await self._client._call(self._search.Search, request, timeout)
            found += _queries.hits(answer, queries[len(found) :])
        return found if several else found[0]

    async def browse(
        self,
        query: Any = None,
        *,
        vector: Any = None,
        id: str | None = None,  # noqa: A002
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> AsyncIterator[Hit]:
        """Like `Collection.browse`."""
        limits = await self._client.limits()
        queries, _ = await asyncio.to_thread(_queries.queries, query, vector, id, limits)
        (request,) = _queries.requests(self.name, queries[:1], options, limits)
        while True:
            answer = await self._client._call(self._search.Search, request, timeout)
            for hit in _queries.hits(answer, queries)[0]:
                yield hit
            request.page_token = answer.results[0].next_page_token
            if not request.page_token:
                return

    async def configure_index(
        self,
        kind: str = "auto",
        *,
        target_recall: float = 0.98,
        storage: str = "fp16",
        timeout: float | None = None,
    ) -> CollectionInfo:
        """Like `Collection.configure_index`."""
        request = collections_pb2.ConfigureIndexRequest(
            name=self.name, settings=_wire.index_settings(kind, target_recall, storage)
        )
        answer = await self._client._call(self._collections.ConfigureIndex, request, timeout)
        return _wire.collection_info(answer.collection)

    async def set_attribute_indexes(
        self, attributes: Iterable[str], *, timeout: float | None = None
    ) -> CollectionInfo:
        """Like `Collection.set_attribute_indexes`."""
        request = collections_pb2.SetAttributeIndexesRequest(
            name=self.name, attribute_indexes=_wire.names(attributes)
        )
        answer = await self._client._call(self._collections.SetAttributeIndexes, request, timeout)
        return _wire.collection_info(answer.collection)

    async def verify(self, *, timeout: float | None = None) -> VerifyReport:
        """Like `Collection.verify`."""
        request = collections_pb2.VerifyCollectionRequest(name=self.name)
        return _wire.verify_report(
            await self._client._call(self._collections.VerifyCollection, request, timeout)
        )

    async def backup(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> int:
        """Like `Collection.backup`."""
        request = collections_pb2.BackupCollectionRequest(name=self.name)
        call: Any = self._collections.BackupCollection(request, timeout=timeout)
        with BackupFile(path) as file:
            try:
                async for piece in call:
                    await asyncio.to_thread(file.take, piece)
            except grpc.RpcError as error:
                raise _shared.error_of(error, self._client.target) from None
        return file.sequence

    async def get(
        self,
        ids: str | Iterable[str],
        *,
        allow_missing: bool = False,
        descriptors: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Like `Collection.get`: an item, or a list of items for a list of ids."""
        if isinstance(ids, str):
            return (await self.get([ids], descriptors=descriptors, timeout=timeout))[0]
        items: list[Item] = []
        for page in pages(ids):
            request = items_pb2.GetItemsRequest(
                collection=self.name, ids=page, allow_missing=allow_missing, include_descriptors=descriptors
            )
            answer = await self._client._call(self._items.GetItems, request, timeout)
            items += [_wire.item(item) for item in answer.items]
        return items

    async def items(
        self,
        where: str = "",
        *,
        after_sequence: int = 0,
        descriptors: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[Item]:
        """Like `Collection.items`."""
        request = items_pb2.ListItemsRequest(
            collection=self.name,
            page_size=PAGE,
            where=where,
            include_descriptors=descriptors,
            after_sequence=after_sequence,
        )
        while True:
            answer = await self._client._call(self._items.ListItems, request, timeout)
            for item in answer.items:
                yield _wire.item(item)
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    async def delete(self, ids: str | Iterable[str], *, timeout: float | None = None) -> int:
        """Like `Collection.delete`."""
        deleted = 0
        for page in pages([ids] if isinstance(ids, str) else ids):
            request = items_pb2.DeleteItemsRequest(collection=self.name, ids=page)
            deleted += (await self._client._call(self._items.DeleteItems, request, timeout)).deleted
        return deleted
