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

from lookalike_server.parts import Keys, Vectors

_faiss: Any = faiss  # its types leave out what its Python part adds
_SPARE = 8
_MOST_SELECTIONS = 4


@dataclass(frozen=True)
class Effort:
    """How far a search goes: `width` is efSearch or nprobe, `refine` the number of proposals for each hit."""

    width: int
    refine: int = 1


@dataclass(frozen=True, eq=False)
class Approximate:
    """An index over the rows whose keys are `keys`.

    Rows of equal descriptors are one row of FAISS's index, as graphs of many equal vectors are slow to build:
    row i stands for keys[starts[i] : starts[i + 1]].
    """

    index: Any  # faiss.Index
    keys: Keys
    starts: NDArray[np.int64]
    factory: str
    effort: Effort
    recall: float
    target: float
    memory: int
    """Bytes that the index takes."""
    _selections: dict[int, tuple[Keys, Any]] = field(default_factory=dict)

    @cached_property
    def first(self) -> int:
        return int(self.keys.min())

    @cached_property
    def last(self) -> int:
        return int(self.keys.max())

    def proposals(self, queries: Vectors, k: int, wanted: Keys | None) -> list[Keys]:
        """Returns, for each query [q, d], keys that may be among the k nearest, deleted ones included."""
        faiss.omp_set_num_threads(1)
        count = self.most(k)
        effort, selection = self.effort, None
        if wanted is not None:  # part of what is met on the way does not count
            further = 2 + round(1.5 * len(self.keys) / max(1, len(wanted)))
            effort, selection = replace(effort, width=further * effort.width), self._selection(wanted)
        _, rows = self.index.search(queries, count, params=parameters(self.index, effort, selection))
        return [self.keys_of(found[found >= 0]) for found in rows]

    def most(self, k: int) -> int:
        """How many rows are proposed for k hits."""
        return min(k * self.effort.refine + _SPARE, int(self.index.ntotal))

    def keys_of(self, rows: NDArray[np.int64]) -> Keys:
        lengths = self.starts[rows + 1] - self.starts[rows]
        ends = np.cumsum(lengths)
        offsets = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
        keys: Keys = self.keys[np.repeat(self.starts[rows], lengths) + offsets]
        return keys

    def _selection(self, wanted: Keys) -> Any:
        """A selector of rows with a wanted key; the same array is not looked up twice."""
        known = self._selections.get(id(wanted))
        if known is not None and known[0] is wanted:
            return known[1]
        member = np.isin(self.keys, wanted)
        row_of = np.repeat(np.arange(self.index.ntotal), np.diff(self.starts))
        mask = np.zeros(self.index.ntotal, np.bool_)
        mask[row_of[member]] = True
        selector = _faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        while len(self._selections) >= _MOST_SELECTIONS:
            self._selections.pop(next(iter(self._selections)), None)
        self._selections[id(wanted)] = (wanted, selector)
        return selector


def parameters(index: Any, effort: Effort, selector: Any = None) -> Any:
    """Search effort as an argument: a field of the index would be shared by all who search."""
    options = {} if selector is None else {"sel": selector}
    if isinstance(index, faiss.IndexHNSW):
        return _faiss.SearchParametersHNSW(efSearch=effort.width, **options)
    if isinstance(index, faiss.IndexIVF):
        return _faiss.SearchParametersIVF(nprobe=min(effort.width, index.nlist), **options)
    return _faiss.SearchParameters(**options) if options else None


def covered(indexes: Sequence[Approximate], first: int, last: int) -> bool:
    """Whether one of the indexes holds all rows with keys from `first` to `last`."""
    return any(one.first <= first and last <= one.last for one in indexes)
