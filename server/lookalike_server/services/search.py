"""SearchService: the nearest items of a collection."""

from __future__ import annotations

import asyncio
import math
import struct
import time
from typing import Any

import numpy as np
from lookalike.v1 import search_pb2 as pb
from lookalike.v1 import search_pb2_grpc
from lookalike_extractor.errors import LookalikeError

from lookalike_server.answers import Account, Ask, Hit
from lookalike_server.calibrations import least_score
from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.config import Settings
from lookalike_server.engine import Engine
from lookalike_server.errors import ArgumentInvalid, DeadlineUnreachable
from lookalike_server.filters import parse_filter, parse_path
from lookalike_server.services.closer import Closer, check_closer, looks_closer
from lookalike_server.services.queries import Queries
from lookalike_server.services.spaces import check_count, in_thread
from lookalike_server.services.together import Together
from lookalike_server.services.tokens import make_token, read_token
from lookalike_server.wire import status_of

_DEFAULT_K = 10
_MOST_IN_RANGE = 10_000
_MOST_PAGED = 10_000
_MOST_OF_A_GROUP = 100
_SEQUENCE_SECONDS = 10.0
# Hits before the place, the score of the hit there; its id follows.
_PLACE = struct.Struct("<If")


class SearchServicer(search_pb2_grpc.SearchServiceServicer):
    def __init__(self, catalog: Catalog, engine: Engine, settings: Settings) -> None:
        self._catalog = catalog
        self._queries = Queries(catalog, engine)
        self._together = Together(catalog.workers)
        self._closer = Closer(catalog, engine, self._together, settings)
        self._max_queries = settings.max_images_per_message
        self._max_k = settings.max_k

    async def Search(self, request: pb.SearchRequest, context: Any) -> pb.SearchResponse:  # noqa: N802
        began = time.perf_counter()
        collection = self._catalog.get(request.collection)
        request.collection = collection.name  # pages belong to it, whatever its alias means by then
        self._check(request)
        least = await self._least(request, collection)
        if looks_closer(request):
            return await self._look_closer(request, collection, least)
        ask = _ask(request, least)
        queries = await self._queries.descriptors(request.queries, collection)
        embedded = time.perf_counter()
        await _reached(collection, request.min_sequence)
        good = [i for i, query in enumerate(queries) if isinstance(query, np.ndarray)]
        found = await self._together.search(
            collection,
            np.array([queries[i] for i in good], np.float32).reshape(-1, collection.space.dimension),
            ask,
            exclude=[request.queries[i].item_id for i in good],
        )
        results = [
            pb.QueryResult(status=status_of(query) if isinstance(query, LookalikeError) else None)
            for query in queries
        ]
        for i, hits, more in zip(good, found.hits, found.more, strict=True):
            chosen = [hit for hit in hits if hit.score >= least]
            results[i].hits.extend(map(_hit, chosen))
            results[i].more = more and len(chosen) == len(hits)
            results[i].next_page_token = _next_page(results[i], ask, request, request.queries[i])
        response = pb.SearchResponse(results=results, sequence=found.sequence)
        if request.explain:
            searched = time.perf_counter() - embedded
            response.explanation.CopyFrom(_explained(found.account, embedded - began, searched))
        return response

    async def _look_closer(
        self, request: pb.SearchRequest, collection: Collection, least: float
    ) -> pb.SearchResponse:
        await _reached(collection, request.min_sequence)
        began = time.perf_counter()
        answer = await self._closer.search(request, collection, request.k or _DEFAULT_K, least)
        results = [
            pb.QueryResult(status=status_of(hits))
            if isinstance(hits, LookalikeError)
            else pb.QueryResult(hits=map(_hit, hits))
            for hits in answer.hits
        ]
        response = pb.SearchResponse(results=results, sequence=answer.found.sequence)
        if request.explain:
            before = answer.queries_seconds
            searched = time.perf_counter() - began - before
            response.explanation.CopyFrom(_explained(answer.found.account, before, searched))
        return response

    def _check(self, request: pb.SearchRequest) -> None:
        check_count(len(request.queries), self._max_queries, "queries")
        most = _MOST_IN_RANGE if request.range else self._max_k
        if request.k > most:
            raise ArgumentInvalid(f"k is {request.k}; at most {most} are allowed.", field="k")
        if math.isnan(request.min_score):
            raise ArgumentInvalid(
                "min_score is not a number; leave it unset for any score.", field="min_score"
            )
        parse_filter(request.where)
        _check_kind(request)
        check_closer(request)

    async def _least(self, request: pb.SearchRequest, collection: Collection) -> float:
        """Returns the least score of a hit, from `min_score` and `min_precision`. Raises NotCalibrated."""
        least = request.min_score if request.HasField("min_score") else -math.inf
        if not request.HasField("min_precision"):
            return least
        precise = await in_thread(self._catalog.workers, _precise, collection, request)
        return max(least, precise)


def _precise(collection: Collection, request: pb.SearchRequest) -> float:
    return least_score(collection, request.min_precision, normalized=request.normalize)


def _check_kind(request: pb.SearchRequest) -> None:
    """Raises ArgumentInvalid for what cannot be asked for together."""
    kinds = [name for name in ("range", "group_by", "page_token") if getattr(request, name)]
    if len(kinds) > 1:
        raise ArgumentInvalid(f"{kinds[0]} and {kinds[1]} cannot be asked for together.", field=kinds[1])
    if request.range and not (request.HasField("min_score") or request.HasField("min_precision")):
        raise ArgumentInvalid(
            "range returns all hits of at least min_score: set it, or min_precision.", field="min_score"
        )
    if request.group_by:
        parse_path(request.group_by, "group_by")
    if request.group_size > _MOST_OF_A_GROUP:
        raise ArgumentInvalid(
            f"group_size is {request.group_size}; at most {_MOST_OF_A_GROUP} are allowed.", field="group_size"
        )
    if request.page_token and len(request.queries) != 1:
        raise ArgumentInvalid(
            f"page_token belongs to one query; the request holds {len(request.queries)}.", field="page_token"
        )


def _ask(request: pb.SearchRequest, least: float) -> Ask:
    if request.range:
        return Ask(request.k or _MOST_IN_RANGE, request.where, least, every=True)
    # The score is bounded afterwards, so that searches with other bounds share a pass.
    k = request.k or _DEFAULT_K
    if request.group_by:
        return Ask(k, request.where, group_by=request.group_by, group_size=request.group_size or 1)
    if not request.page_token:
        return Ask(k, request.where, exact=request.exact)
    place = read_token(request.page_token, _listing(request, request.queries[0]))
    passed, score = _PLACE.unpack_from(place)
    return Ask(k, request.where, after=(score, place[_PLACE.size :].decode()), passed=passed)


async def _reached(collection: Collection, sequence: int) -> None:
    if collection.sequence >= sequence:
        return
    try:
        await asyncio.wait_for(asyncio.wrap_future(collection.reached(sequence)), _SEQUENCE_SECONDS)
    except TimeoutError:
        raise DeadlineUnreachable(
            f"Collection {collection.name!r} is at sequence number {collection.sequence}; min_sequence "
            f"{sequence} was not reached in {_SEQUENCE_SECONDS:.0f} seconds.",
            field="min_sequence",
        ) from None


def _next_page(result: pb.QueryResult, ask: Ask, request: pb.SearchRequest, query: pb.Query) -> str:
    passed = ask.passed + len(result.hits)
    if not result.more or passed >= _MOST_PAGED or ask.every or ask.group_by:
        return ""
    last = result.hits[-1]
    return make_token(_PLACE.pack(passed, last.score) + last.id.encode(), _listing(request, query))


def _listing(request: pb.SearchRequest, query: pb.Query) -> bytes:
    """All that must be the same on the next page."""
    same = pb.SearchRequest(collection=request.collection, queries=[query], where=request.where)
    bounds = f"{request.min_score} {request.min_precision}".encode()
    return same.SerializeToString(deterministic=True) + bounds


def _hit(hit: Hit) -> pb.Hit:
    return pb.Hit(id=hit.id, score=hit.score, attributes_json=hit.attributes_json, group_json=hit.group_json)


def _explained(account: Account, embedding: float, searching: float) -> pb.Explanation:
    busy = account.filter_seconds + account.scan_seconds + account.rows_seconds
    return pb.Explanation(
        plan=account.plan,
        items=account.items,
        fitting=account.fitting,
        compared=account.compared,
        queries=account.queries,
        queries_seconds=embedding,
        wait_seconds=max(0.0, searching - busy),
        filter_seconds=account.filter_seconds,
        scan_seconds=account.scan_seconds,
        rows_seconds=account.rows_seconds,
    )
