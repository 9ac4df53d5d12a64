"""Approximate indexes: FAISS's graphs and lists over a stretch of a collection's rows.

An index is made of rows that will not change, and is never changed itself: what is deleted later is left out
of what it finds, what is written later is scanned beside it. It only proposes: every proposal is looked up in
the view and scored again from its full descriptor, so scores and deletions are as exact as those of a scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lookalike_server.parts import Keys, Part, Vectors
from lookalike_server.runs import Runs
from lookalike_server.structure import Effort, core, estimated, parameters, refined

_faiss: Any = faiss  # its types leave out what its Python part adds
_MOST_SELECTIONS = 4
# Effort of graphs is tuned without filters; one that suffices for a small graph is too little with them.
_LEAST_FILTERED = 64
# What FAISS scores again it scores from rounded descriptors: so many more are proposed.
_ROUNDED = 4
# Lists are chosen by a matrix product for this many numbers of queries together; FAISS assumes 128,000.
_PRODUCT = 1536


@dataclass(frozen=True, eq=False)
class Approximate:
    """An index over rows.

    Rows of equal descriptors are one row of FAISS's index, as graphs of many equal vectors are slow to build:
    row i stands for the keys of run i.
    """

    index: Any  # faiss.Index
    runs: Runs
    factory: str
    effort: Effort
    recall: float
    target: float
    _selections: dict[int, tuple[Keys, Any]] = field(default_factory=dict)

    @property
    def keys(self) -> Keys:
        """Of all rows, in the order of FAISS's."""
        return self.runs.members

    @property
    def memory(self) -> int:
        """About how many bytes it takes."""
        return (
            estimated(self.index, int(self.index.ntotal)) + self.runs.members.nbytes + self.runs.starts.nbytes
        )

    @cached_property
    def first(self) -> int:
        return int(self.keys.min())

    @cached_property
    def last(self) -> int:
        return int(self.keys.max())

    @cached_property
    def _plain(self) -> bool:
        """Whether no row stands for several keys."""
        return len(self.keys) == self._rows

    @cached_property
    def _keys_or_none(self) -> Keys:
        """The keys by rows, and at the end, where row -1 looks, a -1."""
        return np.append(self.keys, -1)

    @cached_property
    def _rows(self) -> int:
        return int(self.index.ntotal)

    @cached_property
    def _refined(self) -> bool:
        return refined(self.index)

    def proposals(self, queries: Vectors, k: int, wanted: Keys | None, spare: int = 0) -> Keys:
        """Returns what may be among the k nearest of the queries [q, d], deleted ones included.

        Returns int64 [q, m], -1 where there is none. `spare` more are looked for, for those that are deleted.
        """
        faiss.omp_set_num_threads(1)
        faiss.cvar.distance_compute_blas_threshold = _PRODUCT
        effort, options = self.effort, self._unfiltered
        if wanted is not None:
            effort = self._further(len(wanted))
            options = parameters(self.index, effort, self._selection(wanted))
        _, rows = self.index.search(queries, self.most(k, spare, effort), params=options)
        return self._expanded(rows)

    @cached_property
    def _unfiltered(self) -> Any:
        return parameters(self.index, self.effort)

    def most(self, k: int, spare: int = 0, effort: Effort | None = None) -> int:
        """How many rows are proposed for k hits."""
        needed = k + _ROUNDED if self._refined else k * (effort or self.effort).refine
        return min(needed + spare, self._rows)

    def _further(self, wanted: int) -> Effort:
        """The effort where only so many keys count: part of what is met on the way does not."""
        share = max(1, wanted) / len(self.keys)
        if isinstance(core(self.index), faiss.IndexHNSW):
            return replace(
                self.effort, width=(2 + round(1.5 / share)) * max(_LEAST_FILTERED, self.effort.width)
            )
        # What fits lies further away, where more is about as far: codes tell it apart less well.
        return Effort(round((2 + 0.3 / share) * self.effort.width), 3 * self.effort.refine)

    def _expanded(self, rows: NDArray[np.int64]) -> Keys:
        """The keys that the rows [q, m] stand for; -1 for those of -1."""
        if self._plain:
            return self._keys_or_none[rows]
        there = rows >= 0
        stood_for = self.runs.chosen(rows[there])
        owners = np.nonzero(there)[0].repeat(stood_for.lengths)
        counts = np.bincount(owners, minlength=len(rows))
        keys = np.full((len(rows), counts.max(initial=0)), -1)
        keys[np.arange(keys.shape[1]) < counts[:, None]] = stood_for.members
        return keys

    def _selection(self, wanted: Keys) -> Any:
        """A selector of rows with a wanted key; the same array is not looked up twice."""
        known = self._selections.get(id(wanted))
        if known is not None and known[0] is wanted:
            return known[1]
        member = wanted[np.minimum(np.searchsorted(wanted, self.keys), len(wanted) - 1)] == self.keys
        row_of = np.repeat(np.arange(self.index.ntotal), self.runs.lengths)
        mask = np.zeros(self.index.ntotal, np.bool_)
        mask[row_of[member]] = True
        selector = _faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        while len(self._selections) >= _MOST_SELECTIONS:
            self._selections.pop(next(iter(self._selections)), None)
        self._selections[id(wanted)] = (wanted, selector)
        return selector


def bare(parts: Sequence[Part], indexes: Sequence[Approximate]) -> tuple[Part, ...]:
    """Returns the stretches of the parts that none of the indexes, which do not overlap, covers."""
    left: list[Part] = []
    for part in parts:
        own, start = part.keys[: part.count], 0
        for index in sorted(indexes, key=lambda one: one.first):
            first, last = np.searchsorted(own, index.first), np.searchsorted(own, index.last, "right")
            if start < first and first < last:
                left.append(part.cut(start, int(first)))
            start = max(start, int(last)) if first < last else start
        if not start:
            left.append(part)
        elif start < part.count:
            left.append(part.cut(start, part.count))
    return tuple(left)
