"""Searches that look closer than one comparison of descriptors. All of it is off unless asked for.

    views       an image query is searched by parts of itself as well; the largest score counts
    normalize   what a query shares with the collection's background is subtracted from its scores
    rerank      the hits are ordered anew by what their neighbours say

Scores mean the same whatever the order: bounds are applied to them at the end.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from lookalike.v1 import search_pb2 as pb
from lookalike_extractor.errors import LookalikeError
from lookalike_extractor.normalization import query_bias
from lookalike_extractor.reranking import EXPANDED_BY, expand_query, k_reciprocal
from lookalike_extractor.views import PART_HANDICAP
from numpy.typing import NDArray

from lookalike_server.answers import Ask, Hit, SearchResult
from lookalike_server.background import get_background
from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.config import Settings
from lookalike_server.engine import Engine
from lookalike_server.errors import ArgumentInvalid
from lookalike_server.services.spaces import in_thread
from lookalike_server.services.together import Together
from lookalike_server.services.viewed import KNOWN_VIEWS, Views

RERANKED = 100
"""Nearest items among which the order is made anew."""
_RERANKS = (pb.RERANK_UNSPECIFIED, pb.RERANK_QUERY_EXPANSION, pb.RERANK_K_RECIPROCAL)


def looks_closer(request: pb.SearchRequest) -> bool:
    return bool(request.views or request.normalize or request.rerank)


def check_closer(request: pb.SearchRequest) -> None:
    """Raises ArgumentInvalid for what is not there, or cannot be asked for together."""
    for field, known in (("views", KNOWN_VIEWS), ("rerank", _RERANKS)):
        if getattr(request, field) not in known:
            raise ArgumentInvalid(
                f"{field} is {getattr(request, field)}, which is no value of it.", field=field
            )
    asked = [name for name in ("views", "normalize", "rerank") if getattr(request, name)]
    others = [name for name in ("range", "group_by", "page_token") if getattr(request, name)]
    if asked and others:
        raise ArgumentInvalid(f"{asked[0]} and {others[0]} cannot be asked for together.", field=asked[0])
    if request.views and request.rerank:
        raise ArgumentInvalid("views and rerank cannot be asked for together.", field="rerank")
    if request.views and request.HasField("min_precision"):
        raise ArgumentInvalid(
            "a calibration is of whole images: with views, set min_score instead of min_precision.",
            field="min_precision",
        )


@dataclass(frozen=True)
class Answer:
    """The hits of each query, or why there are none; the search that found them; seconds before it."""

    hits: list[list[Hit] | LookalikeError]
    found: SearchResult
    queries_seconds: float


@dataclass(frozen=True)
class _Looked:
    """A query on its way: views float32 [v, d], and what is subtracted from the scores of each, [v]."""

    rows: NDArray[np.float32]
    less: NDArray[np.float32]

    def score(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of items [n, d]: [n]."""
        scores: NDArray[np.float32] = (np.clip(self.rows @ vectors.T, -1, 1) - self.less[:, None]).max(axis=0)
        return scores


class Closer:
    """Answers requests for which `looks_closer` is true and that `check_closer` lets pass."""

    def __init__(self, catalog: Catalog, engine: Engine, together: Together, settings: Settings) -> None:
        self._catalog = catalog
        self._together = together
        self._views = Views(catalog, engine, settings)

    async def search(self, request: pb.SearchRequest, collection: Collection, k: int, least: float) -> Answer:
        began = time.perf_counter()
        background = None
        if request.normalize:
            background = await in_thread(self._catalog.workers, get_background, collection)
        answers: list[list[Hit] | LookalikeError] = []
        looked: dict[int, _Looked] = {}
        for i, rows in enumerate(await self._views.of(request, collection)):
            answers.append(rows if isinstance(rows, LookalikeError) else [])
            if not isinstance(rows, LookalikeError):
                looked[i] = _looked(rows, background)
        embedding = time.perf_counter() - began
        own = [request.queries[i].item_id for i in looked]
        depth = max(k, RERANKED) if request.rerank else k
        found, merged = await self._found(collection, list(looked.values()), own, depth, request.where)
        for i, query, item_id, hits in zip(looked, looked.values(), own, merged, strict=True):
            ordered = await self._ordered(request, collection, query, item_id, hits, depth)
            answers[i] = [hit for hit in ordered if hit.score >= least][:k]
        return Answer(answers, found, embedding)

    async def _found(
        self, collection: Collection, looked: Sequence[_Looked], own: Sequence[str], depth: int, where: str
    ) -> tuple[SearchResult, list[list[Hit]]]:
        """The nearest items of each query, by the best of its views.

        Those are among the nearest of the views: an item that no view ranks high enough has `depth` items
        before it in every view.
        """
        rows = [query.rows for query in looked] or [np.empty((0, collection.space.dimension), np.float32)]
        exclude = [item_id for query, item_id in zip(looked, own, strict=True) for _ in query.rows]
        found = await self._together.search(
            collection, np.concatenate(rows), Ask(depth, where), exclude=exclude
        )
        per_view = iter(found.hits)
        return found, [_best([next(per_view) for _ in query.rows], query.less)[:depth] for query in looked]

    async def _ordered(
        self,
        request: pb.SearchRequest,
        collection: Collection,
        query: _Looked,
        own: str,
        hits: list[Hit],
        depth: int,
    ) -> list[Hit]:
        if not request.rerank or not hits:
            return hits
        hits, vectors = await self._vectors(collection, hits)
        if request.rerank == pb.RERANK_K_RECIPROCAL:
            close = k_reciprocal(query.rows[0], vectors)
            return [hits[i] for i in np.argsort(-close, kind="stable")]
        expanded = expand_query(query.rows[0], vectors[:EXPANDED_BY])
        again = _Looked(expanded[None], np.zeros(1, np.float32))
        _, (nearest,) = await self._found(collection, [again], [own], depth, request.where)
        nearest, vectors = await self._vectors(collection, nearest)
        scores = query.score(vectors).tolist()
        return [hit._replace(score=score) for hit, score in zip(nearest, scores, strict=True)]

    async def _vectors(
        self, collection: Collection, hits: Sequence[Hit]
    ) -> tuple[list[Hit], NDArray[np.float32]]:
        """Those of the hits that are still there, and their descriptors [n, d]."""
        ids = [hit.id for hit in hits]
        rows = await in_thread(self._catalog.workers, collection.get, ids, descriptors=True)
        vectors = {item_id: row.descriptor for item_id, row in rows.items() if row.descriptor is not None}
        there = [hit for hit in hits if hit.id in vectors]
        dimension = collection.space.dimension
        return there, np.array([vectors[hit.id] for hit in there], np.float32).reshape(-1, dimension)


def _looked(rows: NDArray[np.float32], background: NDArray[np.float32] | None) -> _Looked:
    less = np.full(len(rows), PART_HANDICAP, np.float32)
    less[0] = 0
    return _Looked(rows, less if background is None else less + query_bias(rows, background))


def _best(per_view: Sequence[Sequence[Hit]], less: NDArray[np.float32]) -> list[Hit]:
    """Each item that a view found, with its best score of all views, nearest first."""
    best: dict[str, Hit] = {}
    for hits, subtracted in zip(per_view, less.tolist(), strict=True):
        for hit in hits:
            scored = hit._replace(score=hit.score - subtracted)
            if hit.id not in best or scored.score > best[hit.id].score:
                best[hit.id] = scored
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.id))
