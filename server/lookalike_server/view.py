"""What searches look at: one state of a collection's vectors in memory, never changed once it is published.

A view is a row of parts, oldest first, each with ascending keys. A write makes a new view that shares all it
can with the one before: new vectors go behind the last part's, into memory that older views cannot see; a
deletion copies the one mask it changes. Whoever searches keeps the view it began with, without a lock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lookalike_server.approximate import Approximate, bare
from lookalike_server.parts import Keys, Mask, Part, Vectors
from lookalike_server.rows import Descriptor
from lookalike_server.scan import Found, nearest, within
from lookalike_server.schema import TALLY_MODULUS

PART_ROWS = 32_768


class View:
    """One state of a collection's vectors.

    Args:
        dimension: of each vector.
        sequence: of the last write in it.
        parts: the rows, by ascending keys. The last one alone may be extended.
        indexes: over stretches of those rows, for searches that need not be exact.
    """

    def __init__(
        self,
        dimension: int,
        sequence: int = 0,
        parts: Sequence[Part] = (),
        indexes: Sequence[Approximate] = (),
    ) -> None:
        self.dimension = dimension
        self.sequence = sequence
        self.parts = tuple(parts)
        self.indexes = tuple(indexes)
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
        return View(self.dimension, sequence, parts, self.indexes)

    def rewritten(self, run: Sequence[Part], part: Part | None) -> View:
        """Returns the view with one part, or none, in place of a run of its parts.

        The parts of this view may have lost rows since the run was taken; `part` must have lost them too.
        """
        taken = {id(old.keys) for old in run}
        places = [i for i, old in enumerate(self.parts) if id(old.keys) in taken]
        first, last = places[0], places[-1]
        between = () if part is None else (part,)
        parts = [*self.parts[:first], *between, *self.parts[last + 1 :]]
        return View(self.dimension, self.sequence, parts, self.indexes)

    def indexed(self, indexes: Sequence[Approximate]) -> View:
        """Returns the view with other indexes."""
        return View(self.dimension, self.sequence, self.parts, indexes)

    def tally(self) -> tuple[int, int]:
        """Returns how many rows are alive, and a sum over their keys: other rows, another tally."""
        keys = [part.keys[: part.count][part.alive] % TALLY_MODULUS for part in self.parts]
        return self.count, sum(int(one.sum()) for one in keys)

    def search(self, queries: Vectors, k: int, wanted: Keys | None = None) -> list[Found]:
        """Finds, for each query, the k best rows and all that tie with the last of them.

        Args:
            queries: float32 [q, d], of length 1.
            k: at least 1.
            wanted: ascending keys to choose among; None means all.
        """
        return nearest(self._masked(wanted), queries, k)

    @cached_property
    def beside(self) -> tuple[Part, ...]:
        """The stretches of parts that no index covers."""
        return bare(self.parts, self.indexes)

    @cached_property
    def bare_count(self) -> int:
        """How many living rows no index covers."""
        return sum(part.living for part in self.beside)

    @cached_property
    def plan(self) -> str:
        """How it is searched through its indexes, in words."""
        efforts = (f"{one.factory} at {one.effort}" for one in self.indexes)
        return f"{', '.join(efforts)}, exact scan of {self.bare_count} items beside"

    @cached_property
    def touched(self) -> tuple[bool, ...]:
        """Of each index whether rows of it were deleted."""
        living = [sum(p.between(i.first, i.last).living for p in self.parts) for i in self.indexes]
        return tuple(count < len(i.keys) for count, i in zip(living, self.indexes, strict=True))

    def gather(self, keys: Iterable[int], into: NDArray[np.float64]) -> list[int]:
        """Copies the vectors of those keys that are alive into the first rows of `into`; returns these keys.

        A few rows anywhere in memory: Python finds them quicker than numpy does.
        """
        parts, firsts, alive = self.parts, self._firsts, list[int]()
        for key in keys if parts else ():
            part = parts[bisect_right(firsts, key) - 1]
            row = part.row_of(key)
            if row >= 0:
                into[len(alive)] = part.vectors[row]
                alive.append(key)
        return alive

    @cached_property
    def _firsts(self) -> list[int]:
        return [part.first for part in self.parts]

    def within(self, query: Descriptor, least: float, most: int, wanted: Keys | None = None) -> Found:
        """Finds all rows whose score is at least `least`; of more than `most` the best, and all that tie."""
        return within(self._masked(wanted), query, least, most)

    def _masked(self, wanted: Keys | None) -> list[tuple[Part, Mask]]:
        return [(part, part.mask(wanted)) for part in self.parts]

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
