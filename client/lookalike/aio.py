"""The asynchronous client: the twin of client.py, method by method."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from typing import Literal

import grpc
import numpy as np
from numpy.typing import NDArray

from lookalike import _aio_streams, _bulk, _entries, _shared, _wire
from lookalike._aio_collection import AsyncCollection
from lookalike._aio_connected import AsyncConnected
from lookalike._aio_jobs import AsyncJobs
from lookalike._backups import pieces
from lookalike.errors import AlreadyExists
from lookalike.images import ImageLike
from lookalike.records import (
    BackboneInfo,
    CollectionInfo,
    EmbedResult,
    IndexEstimate,
    Limits,
    NodeInfo,
    RecipeInfo,
    ServerInfo,
)
from lookalike.v1 import collections_pb2, models_pb2

__all__ = ["AsyncClient", "AsyncCollection"]


class AsyncClient(AsyncConnected):
    """A connection to a Lookalike server for asyncio; every method is that of `Client`, to be awaited.

        async with AsyncClient("localhost:50051") as client:
            vector = await client.embed("photo.jpg")

    It belongs to the event loop in which it was made. Files are read in threads.
    """

    async def embed(
        self, image: ImageLike, recipe: str = "", *, timeout: float | None = None
    ) -> NDArray[np.float32]:
        """Like `Client.embed`."""
        limits = await self.limits()
        chunks = _bulk.cut(_entries.image_entries([image], limits), limits)
        chunk = await asyncio.to_thread(next, chunks)
        request = _bulk.embed_request(chunk, recipe).request
        answer = await self._call(self._embedding.Embed, request, timeout) if chunk.payloads else None
        return _bulk.descriptor_of(next(_bulk.embed_results(chunk, answer)))

    async def embed_many(
        self,
        images: Iterable[ImageLike],
        recipe: str = "",
        *,
        on_error: Literal["raise", "report"] = "raise",
        timeout: float | None = None,
    ) -> AsyncIterator[EmbedResult]:
        """Like `Client.embed_many`; `images` are taken in a thread."""
        _bulk.check_on_error(on_error)
        limits = await self.limits()
        answers = _aio_streams.exchange(
            self._embedding.EmbedStream,
            lambda chunk: _bulk.embed_request(chunk, recipe),
            _bulk.cut(_entries.image_entries(images, limits), limits),
            self.target,
            timeout,
        )
        async for chunk, answer in answers:
            for result in _bulk.embed_results(chunk, answer and answer.response):
                if on_error == "raise":
                    _bulk.descriptor_of(result)
                yield result

    async def info(self, *, timeout: float | None = None) -> ServerInfo:
        """Like `Client.info`."""
        request = models_pb2.GetServerInfoRequest()
        return _wire.server_info(await self._call(self._models.GetServerInfo, request, timeout))

    async def limits(self) -> Limits:
        """Like `Client.limits`."""
        if self._limits is None:
            self._limits = (await self.info()).limits
        return self._limits

    async def recipes(self, *, timeout: float | None = None) -> list[RecipeInfo]:
        """Like `Client.recipes`."""
        answer = await self._call(self._models.ListRecipes, models_pb2.ListRecipesRequest(), timeout)
        return [_wire.recipe(recipe) for recipe in answer.recipes]

    async def backbones(self, *, timeout: float | None = None) -> list[BackboneInfo]:
        """Like `Client.backbones`."""
        answer = await self._call(self._models.ListBackbones, models_pb2.ListBackbonesRequest(), timeout)
        return [_wire.backbone(backbone) for backbone in answer.backbones]

    async def nodes(self, backbone: str, *, timeout: float | None = None) -> list[NodeInfo]:
        """Like `Client.nodes`."""
        request = models_pb2.ListNodesRequest(backbone=backbone)
        answer = await self._call(self._models.ListNodes, request, timeout)
        return [_wire.node(node) for node in answer.nodes]

    async def create_collection(
        self,
        name: str,
        recipe: str = "",
        *,
        attribute_indexes: Iterable[str] = (),
        exist_ok: bool = False,
        timeout: float | None = None,
    ) -> AsyncCollection:
        """Like `Client.create_collection`."""
        request = collections_pb2.CreateCollectionRequest(
            name=name, recipe=recipe, attribute_indexes=_wire.names(attribute_indexes)
        )
        try:
            await self._call(self._collections.CreateCollection, request, timeout)
        except AlreadyExists:
            if not exist_ok:
                raise
            info = await AsyncCollection(self, name).info(timeout=timeout)
            _wire.check_recipe(info, recipe)
        return AsyncCollection(self, name)

    async def collection(self, name: str, *, timeout: float | None = None) -> AsyncCollection:
        """Like `Client.collection`."""
        collection = AsyncCollection(self, name)
        await collection.info(timeout=timeout)
        return collection

    async def collections(self, *, timeout: float | None = None) -> list[CollectionInfo]:
        """Like `Client.collections`."""
        request = collections_pb2.ListCollectionsRequest()
        answer = await self._call(self._collections.ListCollections, request, timeout)
        return [_wire.collection_info(collection) for collection in answer.collections]

    async def delete_collection(self, name: str, *, timeout: float | None = None) -> None:
        """Like `Client.delete_collection`."""
        request = collections_pb2.DeleteCollectionRequest(name=name)
        await self._call(self._collections.DeleteCollection, request, timeout)

    async def set_alias(
        self, alias: str, collection: str, *, timeout: float | None = None
    ) -> AsyncCollection:
        """Like `Client.set_alias`."""
        request = collections_pb2.SetAliasRequest(alias=alias, collection=collection)
        await self._call(self._collections.SetAlias, request, timeout)
        return AsyncCollection(self, alias)

    async def delete_alias(self, alias: str, *, timeout: float | None = None) -> None:
        """Like `Client.delete_alias`."""
        request = collections_pb2.DeleteAliasRequest(alias=alias)
        await self._call(self._collections.DeleteAlias, request, timeout)

    @property
    def jobs(self) -> AsyncJobs:
        """The searches for duplicates on this server."""
        return AsyncJobs(self)

    async def estimate_index(
        self,
        item_count: int,
        dimension: int,
        kind: str = "auto",
        *,
        storage: str = "fp16",
        timeout: float | None = None,
    ) -> IndexEstimate:
        """Like `Client.estimate_index`."""
        request = collections_pb2.EstimateIndexRequest(
            item_count=item_count, dimension=dimension, settings=_wire.index_settings(kind, 0, storage)
        )
        return _wire.index_estimate(await self._call(self._collections.EstimateIndex, request, timeout))

    async def restore(
        self, path: str | os.PathLike[str], name: str = "", *, timeout: float | None = None
    ) -> AsyncCollection:
        """Like `Client.restore`."""
        try:
            answer = await self._collections.RestoreCollection(pieces(path, name), timeout=timeout)
        except grpc.RpcError as error:
            raise _shared.error_of(error, self.target) from None
        return AsyncCollection(self, answer.collection.name)
