"""What searches look at: one state of a collection's vectors in memory, never changed once it is published.

A view is a row of parts, oldest first, each with ascending keys. A write makes a new view that shares all it
can with the one before: new vectors go behind the last part's, into memory that older views cannot see; a
deletion copies the one mask it changes. Whoever searches keeps the view it began with, without a lock.

FAISS's exact kernels do the scan on that memory. Its indexes are not used: adding to one while it is searched
crashes. What the scan finds is scored again in double precision, so that a score depends on nothing but the
two descriptors, and rows of equal descriptors have equal scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import faiss
import numpy as np
from numpy.typing import NDArray

from lookalike_server.rows import Descriptor

Keys = NDArray[np.int64]
Vectors = NDArray[np.float32]
Mask = NDArray[np.bool_]

PART_ROWS = 32_768
# Under this share of a part it is faster to gather the rows that count than to scan them all.
_SPARSE = 0.5
_SPARE_HITS = 8


@dataclass(frozen=True)
class Part:
    """A stretch of rows. `keys` and `vectors` may have room behind the first `count` rows."""

    keys: Keys
    vectors: Vectors
    count: int
    alive: Mask
    """bool [count]; False where the row was deleted."""
    sealed: bool = False
    """True when it lies on disk as a segment."""

    @cached_property
    def living(self) -> int:
        return int(np.count_nonzero(self.alive))

    def rows_of(self, keys: Keys) -> NDArray[np.intp]:
        """Returns the rows of those of the ascending `keys` that this part holds."""
        if not self.count:
            return np.empty(0, np.intp)
        own = self.keys[: self.count]
        first, last = np.searchsorted(keys, own[0]), np.searchsorted(keys, own[-1], "right")
        rows = np.searchsorted(own, keys[first:last])
        held: NDArray[np.intp] = rows[own[rows] == keys[first:last]]
        return held

    def without(self, keys: Keys) -> Part:
        rows = self.rows_of(keys)
        if not len(rows):
            return self
        alive = self.alive.copy()
        alive[rows] = False
        return replace(self, alive=alive)

    def extended(self, keys: Keys, vectors: Vectors) -> Part:
        """Returns a part with those rows behind its own, in the same memory. Only once for any part."""
        end = self.count + len(keys)
        self.keys[self.count : end] = keys
        self.vectors[self.count : end] = vectors
        return replace(self, count=end, alive=np.concatenate([self.alive, np.ones(len(keys), np.bool_)]))

    def mask(self, wanted: Keys | None) -> Mask:
        """Returns which rows are alive and, where `wanted` is given, among those keys: bool [count]."""
        if wanted is None:
            return self.alive
        mask = np.zeros(self.count, np.bool_)
        mask[self.rows_of(wanted)] = True
        return mask & self.alive


@dataclass(frozen=True)
class Found:
    """What one query found: keys int64 [m] and scores float32 [m], -1..1, in no order."""

    keys: Keys
    scores: NDArray[np.float32]


class View:
    """One state of a collection's vectors.

    Args:
        dimension: of each vector.
        sequence: of the last write in it.
        parts: the rows, by ascending keys. The last one alone may be extended.
    """

    def __init__(self, dimension: int, sequence: int = 0, parts: Sequence[Part] = ()) -> None:
        self.dimension = dimension
        self.sequence = sequence
        self.parts = tuple(parts)
        self.count = sum(part.living for part in self.parts)

    @classmethod
    def built(cls, dimension: int, sequence: int, blocks: Iterable[tuple[Keys, Vectors]]) -> View:
        """Returns a view of all rows of the blocks, whose keys ascend."""
        parts: list[Part] = []
        for keys, vectors in blocks:
            _append(parts, keys, vectors)
        return cls(dimension, sequence, parts)

    def changed(self, sequence: int, keys: Keys, vectors: Vectors, removed: Iterable[int]) -> View:
        """Returns the view after a write.

        Args:
            sequence: of the write.
            keys: int64 [n], ascending and greater than all before.
            vectors: float32 [n, d], of length 1.
            removed: keys to leave out from now on.
        """
        gone = np.sort(np.fromiter(removed, np.int64))
        parts = [part.without(gone) for part in self.parts] if len(gone) else list(self.parts)
        if len(keys):
            _append(parts, keys, vectors)
        return View(self.dimension, sequence, parts)

    def rewritten(self, run: Sequence[Part], part: Part | None) -> View:
        """Returns the view with one part, or none, in place of a run of its parts.

        The parts of this view may have lost rows since the run was taken; `part` must have lost them too.
        """
        taken = {id(old.keys) for old in run}
        places = [i for i, old in enumerate(self.parts) if id(old.keys) in taken]
        first, last = places[0], places[-1]
        between = () if part is None else (part,)
        return View(self.dimension, self.sequence, [*self.parts[:first], *between, *self.parts[last + 1 :]])

    def search(self, queries: Vectors, k: int, wanted: Keys | None = None) -> list[Found]:
        """Finds, for each query, the k best rows and all that tie with the last of them.

        Args:
            queries: float32 [q, d], of length 1.
            k: at least 1.
            wanted: ascending keys to choose among; None means all.
        """
        parts = [(part, part.mask(wanted)) for part in self.parts]
        found = [(part, *_nearest(queries, part, mask, k)) for part, mask in parts if mask.any()]
        if not found or not len(queries):
            return [Found(np.empty(0, np.int64), np.empty(0, np.float32))] * len(queries)
        rough = np.concatenate([scores for _, scores, _ in found], axis=1)
        which = np.concatenate([np.full(rows.shape[1], i) for i, (_, _, rows) in enumerate(found)])
        rows = np.concatenate([rows for _, _, rows in found], axis=1)
        floor = _kth(rough, k) - _tolerance(self.dimension)
        answers = []
        for query, scores, places, least in zip(queries, rough, rows, floor, strict=True):
            kept = np.flatnonzero((scores >= least) & (scores > -np.inf))
            keys, vectors = _gathered([part for part, _, _ in found], which[kept], places[kept])
            answers.append(_best(keys, exact_scores(query, vectors), k))
        return answers

    def snapshot(self, wanted: Keys | None = None) -> tuple[Keys, Vectors]:
        """Returns copies of the keys int64 [n], ascending, and vectors float32 [n, d] of the living rows."""
        masks = [part.mask(wanted) for part in self.parts]
        keys = [part.keys[: part.count][mask] for part, mask in zip(self.parts, masks, strict=True)]
        vectors = np.empty((sum(map(len, keys)), self.dimension), np.float32)
        end = 0
        for part, mask, chosen in zip(self.parts, masks, keys, strict=True):
            np.compress(mask, part.vectors[: part.count], axis=0, out=vectors[end : end + len(chosen)])
            end += len(chosen)
        return np.concatenate([*keys, np.empty(0, np.int64)]), vectors


def exact_scores(query: Descriptor, vectors: Vectors) -> NDArray[np.float32]:
    """Returns the cosine of the query [d] and each vector [n, d], -1..1, the same wherever a row stands."""
    products = vectors.astype(np.float64) * query.astype(np.float64)
    scores: NDArray[np.float64] = np.clip(products.sum(axis=1), -1, 1)
    return scores.astype(np.float32)


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
        if (scores[:, -1] < _kth(counted, k) - _tolerance(vectors.shape[1])).all():
            return counted, rows
        fetch *= 4


def _knn(queries: Vectors, vectors: Vectors, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    # Both settings change speed alone. Searches run beside each other, so each has one thread; and the matrix
    # product beats one scan for each query from three queries on, not from the 250 that FAISS assumes.
    faiss.omp_set_num_threads(1)
    faiss.cvar.distance_compute_blas_threshold = 3 * vectors.shape[1]
    scores, rows = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, rows


def _kth(scores: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Returns the k-th best score of each row of [q, m]; the least where there are fewer."""
    k = min(k, scores.shape[1])
    return np.partition(scores, -k, axis=1)[:, -k]


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


def _best(keys: Keys, scores: NDArray[np.float32], k: int) -> Found:
    kept = scores >= _kth(scores[None], k)
    return Found(keys[kept], scores[kept])


def _append(parts: list[Part], keys: Keys, vectors: Vectors) -> None:
    """Puts the rows behind the last part's, and into new parts where it is full."""
    start = 0
    while start < len(keys):
        if not parts or parts[-1].count == len(parts[-1].keys):
            parts.append(_empty_part(vectors.shape[1]))
        last = parts[-1]
        end = start + len(last.keys) - last.count
        parts[-1] = last.extended(keys[start:end], vectors[start:end])
        start = end


def _empty_part(dimension: int) -> Part:
    # Memory that is not written to is not taken from the system: an empty part costs nothing.
    keys, vectors = np.empty(PART_ROWS, np.int64), np.empty((PART_ROWS, dimension), np.float32)
    return Part(keys, vectors, 0, np.empty(0, np.bool_))
