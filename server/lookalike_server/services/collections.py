"""CollectionService: collections are made, described, deleted, verified, copied and restored."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

from lookalike.v1 import collections_pb2 as pb
from lookalike.v1 import collections_pb2_grpc

from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.engine import Engine
from lookalike_server.services.spaces import in_thread
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
        collection = await in_thread(self._catalog.workers, self._catalog.create, request.name, space)
        return pb.CreateCollectionResponse(collection=_described(collection))

    async def GetCollection(  # noqa: N802
        self, request: pb.GetCollectionRequest, context: Any
    ) -> pb.GetCollectionResponse:
        return pb.GetCollectionResponse(collection=_described(self._catalog.get(request.name)))

    async def ListCollections(  # noqa: N802
        self, request: pb.ListCollectionsRequest, context: Any
    ) -> pb.ListCollectionsResponse:
        return pb.ListCollectionsResponse(collections=map(_described, self._catalog.list()))

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
        return pb.RestoreCollectionResponse(collection=_described(collection))


def _described(collection: Collection) -> pb.Collection:
    message = pb.Collection(
        name=collection.name,
        recipe=collection.space.recipe,
        space=space_to_wire(collection.space),
        item_count=collection.count,
        sequence=collection.sequence,
    )
    message.create_time.FromMilliseconds(round(collection.created * 1000))
    return message
