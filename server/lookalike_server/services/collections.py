"""CollectionService: collections are made, described and deleted."""

from __future__ import annotations

from typing import Any

from lookalike.v1 import collections_pb2 as pb
from lookalike.v1 import collections_pb2_grpc

from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.engine import Engine
from lookalike_server.services.spaces import in_thread
from lookalike_server.wire import space_to_wire


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
