"""How far searches of an index go: the least effort that has the recall that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lookalike_server.approximate import Approximate
from lookalike_server.living import Living
from lookalike_server.parts import Part, Vectors
from lookalike_server.scan import nearest
from lookalike_server.structure import Effort, code_size, core, refined

_K = 10
_WIDTHS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 72, 80, 88, 96, 112, 128, 160, 192, 256, 384, 512)
_REFINES = (2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 64)
# A proposal that is scored again takes as long as so many codes of a list: it lies anywhere in memory.
_REFINED_COST = 16


def tuned(
    index: Approximate, parts: Sequence[Part], queries: Vectors, check: Callable[[], None]
) -> Approximate:
    """Finds the least effort whose recall exceeds the target by what chance may add, its standard error.

    Where both the width and the number of proposals can be chosen, it goes along the border between efforts
    that suffice and those that do not: a width that suffices is tried with fewer proposals, others are wider.

    Args:
        parts: their living rows are those in the index.
        queries: none of those rows, float32 [q, d].
        check: called now and then; it raises when the index is no longer wanted.
    """
    if not len(queries):  # all rows are copies of one
        return replace(index, recall=1.0)
    rows = Living(parts)
    exact = nearest([(part, part.alive) for part in parts], queries, _K)
    truth = np.array([sorted(one.scores)[-_K:][0] if one.scores else -2 for one in exact], np.float32)
    widths, refines = _widths(index.index), _refines(index.index)
    best: Approximate | None = None
    while widths and refines:
        check()
        index = replace(index, effort=Effort(widths[0], refines[-1]))
        shares = _shares(index, rows, queries, truth)
        index = replace(index, recall=float(shares.mean()))
        if index.recall - shares.std() / np.sqrt(len(shares)) < index.target:
            widths = widths[1:]
            continue
        refines = refines[:-1]
        if best is None or _cost(index) < _cost(best):
            best = index
    return best or index


def _widths(index: Any) -> list[int]:
    """From little to much."""
    if isinstance(core(index), faiss.IndexIVF):
        return [width for width in (1, 2, 4, *_WIDTHS) if width <= core(index).nlist]
    return list(_WIDTHS) if isinstance(core(index), faiss.IndexHNSW) else [1]


def _refines(index: Any) -> tuple[int, ...]:
    return _REFINES if refined(index) or code_size(index) < index.d else (1,)


def _cost(index: Approximate) -> float:
    """About how long a search takes, in codes of a list that it looks at."""
    lists = core(index.index)
    each = lists.ntotal / lists.nlist if isinstance(lists, faiss.IndexIVF) else 1.0
    return index.effort.width * each + _REFINED_COST * _K * index.effort.refine


def _shares(
    index: Approximate, rows: Living, queries: Vectors, truth: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The share of the ten nearest that each query finds; ties count by score.

    truth: the score of the last of them for each query.
    """
    proposed = index.proposals(queries, _K, None)
    places = np.minimum(np.searchsorted(rows.keys, proposed), len(rows) - 1)
    alive = rows.keys[places] == proposed
    owners, places = np.nonzero(alive)[0], places[alive]
    scores = np.einsum("nd,nd->n", rows.vectors(places), queries[owners])
    good = np.bincount(owners, scores >= truth[owners] - 1e-5, len(queries))
    return np.minimum(good, _K) / max(1, min(_K, len(rows)))
