"""Queries seen in parts: the descriptors of an image query's views, and one of every other query."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from lookalike.v1 import search_pb2 as pb
from lookalike.v1 import types_pb2
from lookalike_extractor.errors import LookalikeError, NoFace
from lookalike_extractor.images import ImageLimits
from lookalike_extractor.preprocessing import Pixels
from lookalike_extractor.views import pasted_views, picture, views
from numpy.typing import NDArray

from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.config import Settings
from lookalike_server.engine import Engine, Source
from lookalike_server.errors import MessageTooLarge
from lookalike_server.rows import Descriptor
from lookalike_server.services.queries import Queries
from lookalike_server.services.spaces import embedded, in_thread, named
from lookalike_server.wire import image_from_wire

_VIEWS: Mapping[int, Callable[[Pixels], list[Pixels]]] = {
    pb.VIEWS_GRID: views,
    pb.VIEWS_PASTED: pasted_views,
}
KNOWN_VIEWS = (pb.VIEWS_UNSPECIFIED, *_VIEWS)


class Views:
    """Describes the queries of requests, image queries by as many views as the request asks for."""

    def __init__(self, catalog: Catalog, engine: Engine, settings: Settings) -> None:
        self._catalog = catalog
        self._engine = engine
        self._queries = Queries(catalog, engine)
        self._limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
        self._most = settings.max_images_per_message

    async def of(
        self, request: pb.SearchRequest, collection: Collection
    ) -> list[NDArray[np.float32] | LookalikeError]:
        """The descriptors of each query's views, [v, d], or why it cannot be answered."""
        if not request.views:
            plain = await self._queries.descriptors(request.queries, collection)
            return [one if isinstance(one, LookalikeError) else one[None] for one in plain]
        others = [query for query in request.queries if query.WhichOneof("query") != "image"]
        described = iter(await self._queries.descriptors(others, collection))
        seen = iter(await self._seen(request, collection))
        return [
            next(seen) if query.WhichOneof("query") == "image" else _row(next(described))
            for query in request.queries
        ]

    async def _seen(
        self, request: pb.SearchRequest, collection: Collection
    ) -> list[NDArray[np.float32] | LookalikeError]:
        """The same of the image queries alone."""
        images = [(i, q.image) for i, q in enumerate(request.queries) if q.WhichOneof("query") == "image"]
        cut = [self._cut(f"queries[{i}]", image, request.views) for i, image in images]
        parts: list[list[Pixels] | LookalikeError] = list(await asyncio.gather(*cut))
        flat: list[Source] = [part for one in parts if isinstance(one, list) for part in one]
        if len(flat) > self._most:
            raise MessageTooLarge(
                f"queries have {len(flat)} views; send at most {self._most} in one call.",
                field="queries",
            )
        described = iter(await embedded(self._engine, collection, flat, wait=False))
        return [
            one if isinstance(one, LookalikeError) else _joined([next(described) for _ in one])
            for one in parts
        ]

    async def _cut(self, path: str, image: types_pb2.Image, kind: int) -> list[Pixels] | LookalikeError:
        try:
            source = image_from_wire(image, f"{path}.image")
            return await in_thread(self._catalog.workers, self._views_of, source, kind)
        except LookalikeError as error:
            return named(error, path, "image")

    def _views_of(self, source: Source, kind: int) -> list[Pixels]:
        return _VIEWS[kind](picture(source, self._limits) if isinstance(source, bytes) else source)


def _row(query: Descriptor | LookalikeError) -> NDArray[np.float32] | LookalikeError:
    return query if isinstance(query, LookalikeError) else query[None]


def _joined(
    described: Sequence[tuple[Descriptor, object] | LookalikeError],
) -> NDArray[np.float32] | LookalikeError:
    rows: list[Descriptor] = []
    for one in described:
        if rows and isinstance(one, NoFace):  # of a part, while the whole has one
            continue
        if isinstance(one, LookalikeError):
            return one
        rows.append(one[0])
    return np.stack(rows)
