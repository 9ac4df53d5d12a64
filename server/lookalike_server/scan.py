"""Exact searches in parts.

FAISS's exact kernels do the scan on the parts' own memory. What it finds is scored again in double precision,
so that a score depends on nothing but the two descriptors, and rows of equal descriptors have equal scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from lookalike_server.parts import Keys, Mask, Part, Vectors
from lookalike_server.rows import Descriptor

# Under this share of a part it is faster to gather the rows that count than to scan them all.
_SPARSE = 0.5
_SPARE_HITS = 8


class Found(NamedTuple):
    """What one query found, in no order; scores are -1..1.

    Lists, as there are few: of a dozen numbers Python chooses in less time than it takes to call numpy.
    """

    keys: list[int]
    scores: list[float]


def nearest(parts: Sequence[tuple[Part, Mask]], queries: Vectors, k: int) -> list[Found]:
    """Finds, for each query [q, d], the k best rows of the masks and all that tie with the last of them."""
    found = [(part, *_nearest(queries, part, mask, k)) for part, mask in parts if mask.any()]
    if not found or not len(queries):
        return [Found([], [])] * len(queries)
    rough = np.concatenate([scores for _, scores, _ in found], axis=1)
    which = np.concatenate([np.full(rows.shape[1], i) for i, (_, _, rows) in enumerate(found)])
    rows = np.concatenate([rows for _, _, rows in found], axis=1)
    floor = kth(rough, k) - _tolerance(queries.shape[1])
    answers = []
    for query, scores, places, least in zip(queries, rough, rows, floor, strict=True):
        kept = np.flatnonzero((scores >= least) & (scores > -np.inf))
        keys, vectors = _gathered([part for part, _, _ in found], which[kept], places[kept])
        answers.append(best(keys.tolist(), exact_scores(query, vectors).tolist(), k))
    return answers


def within(parts: Sequence[tuple[Part, Mask]], query: Descriptor, least: float, most: int) -> Found:
    """Finds all rows of the masks with at least that score; of more than `most` the best, with ties."""
    tolerance = _tolerance(len(query))
    floor, found = least - tolerance, Found([], [])
    for part, mask in parts:
        rows = np.flatnonzero(mask)
        vectors = part.vectors[: part.count]
        rough = (vectors if len(rows) == part.count else vectors[rows]) @ query
        near = rows[rough >= floor]
        scores = exact_scores(query, part.vectors[near])
        kept = scores.astype(np.float64) >= least
        keys, good = part.keys[near[kept]].tolist(), scores[kept].tolist()
        found = best(found.keys + keys, found.scores + good, most)
        if len(found.keys) >= most:
            floor = min(found.scores) - tolerance
    return found


def exact_scores(query: Descriptor, vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Returns the cosine of the query [d] and each vector [n, d], -1..1, the same wherever a row stands."""
    wide = vectors.astype(np.float64, copy=False)
    scores: NDArray[np.float32] = np.vecdot(wide, query.astype(np.float64)).astype(np.float32)
    np.minimum(scores, 1, out=scores)
    np.maximum(scores, -1, out=scores)
    return scores


def _nearest(
    queries: Vectors, part: Part, mask: Mask, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns rough scores and rows, [q, m]: the k best rows of the mask and all that tie with them, or more.

    Rows that do not count have the score -inf.
    """
    vectors, count = part.vectors[: part.count], int(np.count_nonzero(mask))
    if count < _SPARSE * part.count:
        chosen = np.flatnonzero(mask)
        scores, rows = _scan(queries, vectors[chosen], k, np.ones(count, np.bool_))
        return scores, chosen[rows]
    return _scan(queries, vectors, k, mask)


def _scan(
    queries: Vectors, vectors: Vectors, k: int, mask: Mask
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Asks for more than k, and again for more still, until rows left out can neither count nor tie."""
    fetch = k + _SPARE_HITS
    while True:
        fetch = min(fetch, len(vectors))
        scores, rows = _knn(queries, vectors, fetch)
        counted = np.where(mask[rows], scores, np.float32(-np.inf))
        if fetch == len(vectors):
            return counted, rows
        if (scores[:, -1] < kth(counted, k) - _tolerance(vectors.shape[1])).all():
            return counted, rows
        fetch *= 4


def _knn(queries: Vectors, vectors: Vectors, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    # Both settings change speed alone. Searches run beside each other, so each has one thread; and the matrix
    # product beats one scan for each query from three queries on, not from the 250 that FAISS assumes.
    faiss.omp_set_num_threads(1)
    faiss.cvar.distance_compute_blas_threshold = 3 * vectors.shape[1]
    scores, rows = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, rows


def kth(scores: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Returns the k-th best score of each row of [q, m]; the least where there are fewer."""
    k = min(k, scores.shape[1])
    least: NDArray[np.float32] = np.partition(scores, -k, axis=1)[:, -k]
    return least


def _tolerance(dimension: int) -> float:
    """How far a rough score may be from the exact one, twice: the bound of a sum in single precision."""
    return 2 * dimension * 2.0**-24


def _gathered(
    parts: Sequence[Part], which: NDArray[np.intp], rows: NDArray[np.int64]
) -> tuple[Keys, Vectors]:
    """Returns the keys and vectors of those rows, each of its own part."""
    keys = np.empty(len(rows), np.int64)
    vectors = np.empty((len(rows), parts[0].vectors.shape[1]), np.float32)
    for i in np.unique(which):
        here = which == i
        keys[here], vectors[here] = parts[i].keys[rows[here]], parts[i].vectors[rows[here]]
    return keys, vectors


def best(keys: list[int], scores: list[float], k: int) -> Found:
    """Returns the k best, and all that tie with the last of them."""
    if len(scores) <= k:
        return Found(keys, scores)
    least = sorted(scores)[-k]
    kept = [key for key, score in zip(keys, scores, strict=True) if score >= least]
    return Found(kept, [score for score in scores if score >= least])
