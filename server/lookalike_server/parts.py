"""A stretch of a collection's vectors in memory, never changed once it is published."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int64]
Vectors = NDArray[np.float32]
Mask = NDArray[np.bool_]


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

    @cached_property
    def first(self) -> int:
        """Its first key."""
        return int(self.keys[0])

    def rows_of(self, keys: Keys) -> NDArray[np.intp]:
        """Returns the rows of those of the ascending `keys` that this part holds."""
        if not self.count:
            return np.empty(0, np.intp)
        own = self.keys[: self.count]
        first, last = np.searchsorted(keys, own[0]), np.searchsorted(keys, own[-1], "right")
        rows = np.searchsorted(own, keys[first:last])
        held: NDArray[np.intp] = rows[own[rows] == keys[first:last]]
        return held

    @cached_property
    def whole(self) -> bool:
        """Whether no key between its first and its last is wanting, nor any row deleted."""
        return self.living == self.count == self.keys.item(self.count - 1) - self.first + 1

    def row_of(self, key: int) -> int:
        """Returns the row of a key; less than 0 where it is not here or not alive."""
        row = key - self.first
        if self.whole:
            return row if row < self.count else -1
        if not 0 <= row < self.count or self.keys.item(row) != key:
            row = int(self.keys[: self.count].searchsorted(key))
        there = row < self.count and self.alive.item(row) and self.keys.item(row) == key
        return row if there else -1

    def without(self, keys: Keys) -> Part:
        rows = self.rows_of(keys)
        if not len(rows):
            return self
        alive = self.alive.copy()
        alive[rows] = False
        return replace(self, alive=alive)

    def cut(self, start: int, end: int) -> Part:
        """Returns the rows from `start` to before `end`, in the same memory."""
        return Part(self.keys[start:end], self.vectors[start:end], end - start, self.alive[start:end])

    def between(self, first: int, last: int) -> Part:
        """Returns the rows with keys from `first` to `last`."""
        own = self.keys[: self.count]
        start, end = int(np.searchsorted(own, first)), int(np.searchsorted(own, last, "right"))
        return self if start == 0 and end == self.count else self.cut(start, end)

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
