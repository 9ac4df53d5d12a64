"""SearchService: the nearest items of a collection."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lookalike.v1 import search_pb2 as pb
from lookalike.v1 import search_pb2_grpc
from lookalike_extractor.errors import LookalikeError

from lookalike_server.answers import Hit
from lookalike_server.calibrations import least_score
from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.config import Settings
from lookalike_server.engine import Engine, Source
from lookalike_server.errors import ArgumentInvalid, ItemUnknown
from lookalike_server.filters import parse_filter
from lookalike_server.rows import Descriptor, check_id
from lookalike_server.services.spaces import (
    check_count,
    check_space,
    descriptor_from_wire,
    embedded,
    in_thread,
    named,
)
from lookalike_server.services.together import Together
from lookalike_server.wire import image_from_wire, status_of

_DEFAULT_K = 10


class SearchServicer(search_pb2_grpc.SearchServiceServicer):
    def __init__(self, catalog: Catalog, engine: Engine, settings: Settings) -> None:
        self._catalog = catalog
        self._engine = engine
        self._together = Together(catalog.workers)
        self._max_queries = settings.max_images_per_message
        self._max_k = settings.max_k

    async def Search(self, request: pb.SearchRequest, context: Any) -> pb.SearchResponse:  # noqa: N802
        collection = self._catalog.get(request.collection)
        self._check(request)
        least = await self._least(request, collection)
        queries = await self._descriptors(request.queries, collection)
        good = [i for i, query in enumerate(queries) if isinstance(query, np.ndarray)]
        found = await self._together.search(
            collection,
            np.array([queries[i] for i in good], np.float32).reshape(-1, collection.space.dimension),
            request.k or _DEFAULT_K,
            where=request.where,
            exclude=[request.queries[i].item_id for i in good],
        )
        results = [
            pb.QueryResult(status=status_of(query) if isinstance(query, LookalikeError) else None)
            for query in queries
        ]
        for i, hits in zip(good, found.hits, strict=True):
            results[i].hits.extend(_hit(hit) for hit in hits if hit.score >= least)
        return pb.SearchResponse(results=results, sequence=found.sequence)

    def _check(self, request: pb.SearchRequest) -> None:
        check_count(len(request.queries), self._max_queries, "queries")
        if request.k > self._max_k:
            raise ArgumentInvalid(f"k is {request.k}; at most {self._max_k} are allowed.", field="k")
        if math.isnan(request.min_score):
            raise ArgumentInvalid(
                "min_score is not a number; leave it unset for any score.", field="min_score"
            )
        parse_filter(request.where)

    async def _least(self, request: pb.SearchRequest, collection: Collection) -> float:
        """Returns the least score of a hit, from `min_score` and `min_precision`. Raises NotCalibrated."""
        least = request.min_score if request.HasField("min_score") else -math.inf
        if not request.HasField("min_precision"):
            return least
        precise = await in_thread(self._catalog.workers, least_score, collection, request.min_precision)
        return max(least, precise)

    async def _descriptors(
        self, queries: Sequence[pb.Query], collection: Collection
    ) -> list[Descriptor | LookalikeError]:
        """Returns what each query looks for, or why it cannot be answered."""
        ready: dict[int, Descriptor | LookalikeError] = {}
        images: dict[int, Source] = {}
        ids: dict[int, str] = {}
        for i, query in enumerate(queries):
            path = f"queries[{i}]"
            try:
                match query.WhichOneof("query"):
                    case "image":
                        images[i] = image_from_wire(query.image, f"{path}.image")
                    case "item_id":
                        check_id(query.item_id)
                        ids[i] = query.item_id
                    case "descriptor":
                        check_space(collection, query.space_id, f"{path}.space_id")
                        ready[i] = descriptor_from_wire(query.descriptor, collection, f"{path}.descriptor")
                    case _:
                        raise ArgumentInvalid(
                            "is not set; send an image, a descriptor or an id.", field="query"
                        )
            except LookalikeError as error:
                ready[i] = named(error, path, "item_id")
        ready |= await self._of_images(images, collection)
        ready |= await self._of_items(ids, collection)
        return [ready[i] for i in range(len(queries))]

    async def _of_images(
        self, images: Mapping[int, Source], collection: Collection
    ) -> dict[int, Descriptor | LookalikeError]:
        results = await embedded(self._engine, collection, list(images.values()), wait=False)
        return {
            i: named(result, f"queries[{i}]", "image") if isinstance(result, LookalikeError) else result[0]
            for i, result in zip(images, results, strict=True)
        }

    async def _of_items(
        self, ids: Mapping[int, str], collection: Collection
    ) -> dict[int, Descriptor | LookalikeError]:
        if not ids:
            return {}
        rows = await in_thread(self._catalog.workers, collection.get, list(ids.values()), descriptors=True)
        found: dict[int, Descriptor | LookalikeError] = {}
        for i, item_id in ids.items():
            row = rows.get(item_id)
            if row is None or row.descriptor is None:
                fault = ItemUnknown(f"Collection {collection.name!r} has no item {item_id!r}.", item=item_id)
                found[i] = named(fault, f"queries[{i}]", "item_id")
            else:
                found[i] = row.descriptor
        return found


def _hit(hit: Hit) -> pb.Hit:
    return pb.Hit(id=hit.id, score=hit.score, attributes_json=hit.attributes_json)
