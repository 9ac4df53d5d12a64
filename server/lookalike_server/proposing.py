"""Searches through approximate indexes.

An index proposes, the view disposes: proposals are looked up, scored exactly and merged with a scan of the
stretches that no index covers. A query for which too few proposals are left is answered by an exact scan, so
that k hits come back whenever k items fit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lookalike_server.approximate import Proposed
from lookalike_server.parts import Keys, Vectors
from lookalike_server.scan import Found, best, nearest, pair_scores
from lookalike_server.view import View

# When a filter leaves less than this share of the items, those that fit are scanned: indexes would miss some.
SELECTIVE = 0.1


def worthwhile(view: View, wanted: Keys | None) -> bool:
    """Whether the view's indexes would help."""
    return bool(view.indexes) and (wanted is None or len(wanted) >= SELECTIVE * view.count)


def propose(view: View, queries: Vectors, k: int, wanted: Keys | None) -> list[Found]:
    """Finds about the k nearest for each query float32 [q, d]; what is found is scored exactly."""
    scanned = nearest([(part, part.mask(wanted)) for part in view.beside], queries, k)
    proposed = _proposed(view, queries, k, wanted)
    scores, alive = _scored(view, queries, proposed)
    owners, keys, scores = proposed.owners[alive], proposed.keys[alive], scores[alive]
    ends = np.searchsorted(owners, np.arange(len(queries)), "right").tolist()
    found = [
        _merged(one, keys[start:end], scores[start:end], k)
        for one, start, end in zip(scanned, [0, *ends], ends, strict=False)
    ]
    available = view.count if wanted is None else len(wanted)
    short = [i for i, one in enumerate(found) if len(one.keys) < min(k, available)]
    if short:
        for i, one in zip(short, view.search(queries[short], k, wanted), strict=True):
            found[i] = one
    return found


def _proposed(view: View, queries: Vectors, k: int, wanted: Keys | None) -> Proposed:
    """What the indexes propose together."""
    each = [index.proposals(queries, k, wanted) for index in view.indexes]
    owners = np.concatenate([one.owners for one in each])
    keys = np.concatenate([one.keys for one in each])
    if wanted is not None:
        fitting = wanted[np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)] == keys
        owners, keys = owners[fitting], keys[fitting]
    if len(each) > 1:
        order = np.argsort(owners, kind="stable")
        owners, keys = owners[order], keys[order]
    return Proposed(owners, keys)


def _scored(
    view: View, queries: Vectors, proposed: Proposed
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Returns the exact score of each proposal, and whether its row is alive."""
    keys, places = np.unique(proposed.keys, return_inverse=True)
    alive, vectors = view.locate(keys)
    return pair_scores(queries, proposed.owners, vectors, places), alive[places]


def _merged(scanned: Found, keys: Keys, scores: NDArray[np.float32], k: int) -> Found:
    if len(scanned.keys):
        keys, scores = np.concatenate([scanned.keys, keys]), np.concatenate([scanned.scores, scores])
    return best(keys, scores, k) if len(keys) else scanned
