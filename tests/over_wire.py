"""Collections, items and searches over the real wire, with an engine made by hand."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2
from lookalike.v1 import (
    collections_pb2_grpc,
    items_pb2,
    items_pb2_grpc,
    search_pb2,
    search_pb2_grpc,
    types_pb2,
)
from lookalike_extractor.errors import ImageCorrupt
from lookalike_extractor.recipe import Space
from lookalike_server.catalog import Catalog
from lookalike_server.config import Settings
from lookalike_server.engine import Outcome
from lookalike_server.errors import RecipeUnknown
from lookalike_server.interceptors import CallInterceptor
from lookalike_server.services.collections import CollectionServicer
from lookalike_server.services.items import ItemServicer
from lookalike_server.services.search import SearchServicer
from made_rows import SPACE, pointing


class HandEngine:
    """Takes b"x,y" for a picture whose descriptor points there. Later images are ready sooner."""

    def __init__(self, space: Space = SPACE) -> None:
        self.spaces = {space.recipe: space}
        self.draining = asyncio.Event()
        self.seen: list[bytes] = []

    def recipe_name(self, name: str) -> str:
        if name not in ("", *self.spaces):
            raise RecipeUnknown(f"There is no recipe {name!r}.")
        return name or next(iter(self.spaces))

    async def embed(
        self, images: Sequence[bytes], recipes: Sequence[str], *, wait: bool = False
    ) -> list[Outcome]:
        await asyncio.sleep(0.1 / (1 + len(self.seen)))
        self.seen += images
        return [self._outcome(image, recipes[0]) for image in images]

    def _outcome(self, image: bytes, recipe: str) -> Outcome:
        if image.startswith(b"bad"):
            return Outcome(error=ImageCorrupt("The picture contradicts itself."))
        descriptor = pointing(*map(float, image.split(b",")))
        return Outcome(descriptors={recipe: descriptor}, digest=hashlib.sha256(image).digest())


class Wire:
    """A server and stubs of its services."""

    def __init__(self, target: str, channel: grpc.aio.Channel, catalog: Catalog) -> None:
        self.target = target
        self.catalog = catalog
        self.collections: Any = collections_pb2_grpc.CollectionServiceStub(channel)
        self.items: Any = items_pb2_grpc.ItemServiceStub(channel)
        self.search: Any = search_pb2_grpc.SearchServiceStub(channel)

    async def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Runs what blocks, as the blocking client does."""
        return await asyncio.to_thread(call, *arguments)

    async def upsert(
        self, *items: items_pb2.NewItem, collection: str = "shop"
    ) -> items_pb2.UpsertItemsResponse:
        return await self.items.UpsertItems(items_pb2.UpsertItemsRequest(collection=collection, items=items))

    async def find(self, *queries: search_pb2.Query, **options: Any) -> search_pb2.SearchResponse:
        return await self.search.Search(
            search_pb2.SearchRequest(collection="shop", queries=queries, **options)
        )

    async def page(self, **options: Any) -> items_pb2.ListItemsResponse:
        return await self.items.ListItems(items_pb2.ListItemsRequest(collection="shop", **options))


@asynccontextmanager
async def serving(root: Path, engine: Any) -> AsyncIterator[Wire]:
    settings = Settings(data=root, max_images_per_message=8, max_k=50)
    with Catalog(root) as catalog:
        server = grpc.aio.server(interceptors=[CallInterceptor()])
        collections_pb2_grpc.add_CollectionServiceServicer_to_server(
            CollectionServicer(catalog, engine), server
        )
        items_pb2_grpc.add_ItemServiceServicer_to_server(ItemServicer(catalog, engine, settings), server)
        search_pb2_grpc.add_SearchServiceServicer_to_server(SearchServicer(catalog, engine, settings), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        target = f"127.0.0.1:{port}"
        async with grpc.aio.insecure_channel(target) as channel:
            yield Wire(target, channel, catalog)
        await server.stop(None)


def run_over_wire(root: Path, test: Callable[[Wire], Awaitable[None]]) -> None:
    """Runs a coroutine against a server with an empty collection "shop"."""

    async def all_of_it() -> None:
        async with serving(root, HandEngine()) as wire:
            wire.catalog.create("shop", SPACE)
            await test(wire)

    asyncio.run(all_of_it())


def pictured(item_id: str, data: bytes, **attributes: Any) -> items_pb2.NewItem:
    return items_pb2.NewItem(
        id=item_id, image=types_pb2.Image(data=data), attributes_json=json.dumps(attributes)
    )


def tensor(values: Sequence[float]) -> types_pb2.Tensor:
    data = np.array(values, "<f4").tobytes()
    return types_pb2.Tensor(dtype=types_pb2.DATA_TYPE_FLOAT32, shape=[len(values)], data=data)


def described(item_id: str, *values: float, **fields: Any) -> items_pb2.NewItem:
    return items_pb2.NewItem(id=item_id, descriptor=tensor(values), **fields)


def image_query(data: bytes) -> search_pb2.Query:
    return search_pb2.Query(image=types_pb2.Image(data=data))


def info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    detail = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(detail)
    return detail
