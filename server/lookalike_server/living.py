"""The living rows of some parts as one row after another, without a copy of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lookalike_server.parts import Keys, Part, Vectors
from lookalike_server.runs import Runs

_SLICE = 5_000


class Living:
    """Rows by number, in the order of the parts.

    Attributes:
        keys: of all rows, int64 [n].
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._pieces = [(part, np.flatnonzero(part.alive)) for part in parts if part.living]
        self._starts = np.cumsum([0, *(len(rows) for _, rows in self._pieces)])
        self.keys: Keys = np.concatenate(
            [np.empty(0, np.int64), *(part.keys[rows] for part, rows in self._pieces)]
        )

    def __len__(self) -> int:
        return len(self.keys)

    def vectors(self, numbers: NDArray[np.int64]) -> Vectors:
        """Returns the vectors of those rows: float32 [m, d]."""
        vectors = np.empty((len(numbers), self._pieces[0][0].vectors.shape[1]), np.float32)
        homes = np.searchsorted(self._starts, numbers, "right") - 1
        for home in np.unique(homes).tolist():
            part, rows = self._pieces[home]
            here = homes == home
            vectors[here] = part.vectors[rows[numbers[here] - self._starts[home]]]
        return vectors

    def slices(self, numbers: NDArray[np.int64]) -> Iterator[Vectors]:
        """Yields the vectors of those rows, some thousands at a time."""
        for start in range(0, len(numbers), _SLICE):
            yield self.vectors(numbers[start : start + _SLICE])

    def copies_together(self) -> Runs:
        """Returns the numbers of all rows, equal ones in one run, runs in the order of their first rows.

        Rows are compared by numbers of 64 bits that are made of all of their bits.
        """
        everything = np.arange(len(self), dtype=np.int64)
        digests = [np.empty(0, np.uint64), *(_digests(some) for some in self.slices(everything))]
        _, first, inverse = np.unique(np.concatenate(digests), return_index=True, return_inverse=True)
        groups = first[inverse]
        members = np.argsort(groups, kind="stable")
        begins = np.flatnonzero(np.diff(groups[members], prepend=-1))
        return Runs(members, np.append(begins, len(self)).astype(np.int64))


def _digests(vectors: Vectors) -> NDArray[np.uint64]:
    """Numbers uint64 [n] that differ, but for chance, where the rows do."""
    factors = np.random.default_rng(0).integers(0, 2**64, vectors.shape[1], np.uint64) | np.uint64(1)
    products = vectors.view(np.uint32).astype(np.uint64) * factors
    sums: NDArray[np.uint64] = (products ^ (products >> np.uint64(32))).sum(axis=1, dtype=np.uint64)
    return sums
