"""CollectionService: collections are made, described, deleted, verified, copied and restored."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from lookalike.v1 import collections_pb2 as pb
from lookalike.v1 import collections_pb2_grpc

from lookalike_server.building import TARGET_RECALL, IndexSettings
from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.engine import Engine
from lookalike_server.errors import ArgumentInvalid
from lookalike_server.services.spaces import in_thread
from lookalike_server.status import IndexStatus, estimate
from lookalike_server.wire import space_to_wire

_CHUNK_BYTES = 512 << 10


class CollectionServicer(collections_pb2_grpc.CollectionServiceServicer):
    def __init__(self, catalog: Catalog, engine: Engine) -> None:
        self._catalog = catalog
        self._engine = engine

    async def CreateCollection(  # noqa: N802
        self, request: pb.CreateCollectionRequest, context: Any
    ) -> pb.CreateCollectionResponse:
        space = self._engine.spaces[self._engine.recipe_name(request.recipe)]
        arguments = request.name, space, request.attribute_indexes
        collection = await in_thread(self._catalog.workers, self._catalog.create, *arguments)
        return pb.CreateCollectionResponse(collection=await self._described(collection))

    async def GetCollection(  # noqa: N802
        self, request: pb.GetCollectionRequest, context: Any
    ) -> pb.GetCollectionResponse:
        return pb.GetCollectionResponse(collection=await self._described(self._catalog.get(request.name)))

    async def ListCollections(  # noqa: N802
        self, request: pb.ListCollectionsRequest, context: Any
    ) -> pb.ListCollectionsResponse:
        found = [await self._described(collection) for collection in self._catalog.list()]
        return pb.ListCollectionsResponse(collections=found)

    async def DeleteCollection(  # noqa: N802
        self, request: pb.DeleteCollectionRequest, context: Any
    ) -> pb.DeleteCollectionResponse:
        await in_thread(self._catalog.workers, self._catalog.delete, request.name)
        return pb.DeleteCollectionResponse()

    async def VerifyCollection(  # noqa: N802
        self, request: pb.VerifyCollectionRequest, context: Any
    ) -> pb.VerifyCollectionResponse:
        collection = self._catalog.get(request.name)
        found = await in_thread(self._catalog.workers, collection.verify)
        return pb.VerifyCollectionResponse(
            problems=found.problems,
            item_count=found.items,
            segment_count=found.segments,
            sequence=found.sequence,
        )

    async def SetAlias(  # noqa: N802
        self, request: pb.SetAliasRequest, context: Any
    ) -> pb.SetAliasResponse:
        names = request.alias, request.collection
        collection = await in_thread(self._catalog.workers, self._catalog.set_alias, *names)
        return pb.SetAliasResponse(collection=await self._described(collection))

    async def DeleteAlias(  # noqa: N802
        self, request: pb.DeleteAliasRequest, context: Any
    ) -> pb.DeleteAliasResponse:
        await in_thread(self._catalog.workers, self._catalog.delete_alias, request.alias)
        return pb.DeleteAliasResponse()

    async def BackupCollection(  # noqa: N802
        self, request: pb.BackupCollectionRequest, context: Any
    ) -> AsyncIterator[pb.BackupCollectionResponse]:
        collection = self._catalog.get(request.name)
        workers = self._catalog.workers
        with self._catalog.scratch() as folder:
            sequence = await in_thread(workers, collection.back_up, folder / "store.db")
            digest = hashlib.sha256()
            with (folder / "store.db").open("rb") as file:
                while data := await in_thread(workers, file.read, _CHUNK_BYTES):
                    digest.update(data)
                    yield pb.BackupCollectionResponse(data=data)
            yield pb.BackupCollectionResponse(digest=digest.digest(), sequence=sequence)

    async def RestoreCollection(  # noqa: N802
        self, requests: AsyncIterator[pb.RestoreCollectionRequest], context: Any
    ) -> pb.RestoreCollectionResponse:
        workers, name = self._catalog.workers, ""
        with self._catalog.scratch() as folder:
            with (folder / "store.db").open("wb") as file:
                async for request in requests:
                    name = name or request.name
                    await in_thread(workers, file.write, request.data)
            collection = await in_thread(workers, self._catalog.restore, folder, name)
        return pb.RestoreCollectionResponse(collection=await self._described(collection))

    async def ConfigureIndex(  # noqa: N802
        self, request: pb.ConfigureIndexRequest, context: Any
    ) -> pb.ConfigureIndexResponse:
        collection, settings = self._catalog.get(request.name), _settings(request.settings)
        await in_thread(self._catalog.workers, collection.configure_index, settings)
        return pb.ConfigureIndexResponse(collection=await self._described(collection))

    async def SetAttributeIndexes(  # noqa: N802
        self, request: pb.SetAttributeIndexesRequest, context: Any
    ) -> pb.SetAttributeIndexesResponse:
        collection = self._catalog.get(request.name)
        await in_thread(self._catalog.workers, collection.index_attributes, request.attribute_indexes)
        return pb.SetAttributeIndexesResponse(collection=await self._described(collection))

    async def EstimateIndex(  # noqa: N802
        self, request: pb.EstimateIndexRequest, context: Any
    ) -> pb.EstimateIndexResponse:
        for field, most in (("item_count", 10**12), ("dimension", 65_536)):
            if not 0 < getattr(request, field) <= most:
                raise ArgumentInvalid(f"{field} is from 1 to {most:,}.", field=field)
        found = estimate(_settings(request.settings), request.item_count, request.dimension)
        return pb.EstimateIndexResponse(
            factory=found.factory, memory_bytes=found.memory, disk_bytes=found.disk
        )

    async def _described(self, collection: Collection) -> pb.Collection:
        status = await in_thread(self._catalog.workers, collection.index_status)
        return _to_wire(collection, status, self._catalog.aliases.of(collection.name))


def _settings(wire: pb.IndexSettings) -> IndexSettings:
    return IndexSettings(wire.kind or "auto", wire.target_recall or TARGET_RECALL, wire.storage)


def _to_wire(collection: Collection, status: IndexStatus, aliases: Sequence[str]) -> pb.Collection:
    message = pb.Collection(
        name=collection.name,
        recipe=collection.space.recipe,
        space=space_to_wire(collection.space),
        item_count=collection.count,
        sequence=collection.sequence,
        index=pb.IndexStatus(
            settings=pb.IndexSettings(
                kind=status.settings.kind,
                target_recall=status.settings.target_recall,
                storage=status.settings.storage,
            ),
            factory=status.factory,
            recall=status.recall,
            indexed_count=status.indexed,
            building=status.building,
            memory_bytes=status.memory,
            disk_bytes=status.disk,
        ),
        attribute_indexes=status.attributes,
        aliases=aliases,
    )
    message.create_time.FromMilliseconds(round(collection.created * 1000))
    return message
