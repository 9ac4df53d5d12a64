"""Searches through approximate indexes.

An index proposes, the view disposes: proposals are looked up, scored exactly and merged with a scan of the
parts that no index covers. A query for which too few proposals are left is answered by an exact scan, so that
k hits come back whenever k items fit.
"""

from __future__ import annotations

import numpy as np

from lookalike_server.parts import Keys, Vectors
from lookalike_server.scan import NOTHING, Found, best, exact_scores, nearest
from lookalike_server.view import View

# When a filter leaves less than this share of the items, those that fit are scanned: indexes would miss some.
SELECTIVE = 0.1


def worthwhile(view: View, wanted: Keys | None) -> bool:
    """Whether the view's indexes would help."""
    return bool(view.indexes) and (wanted is None or len(wanted) >= SELECTIVE * view.count)


def propose(view: View, queries: Vectors, k: int, wanted: Keys | None) -> list[Found]:
    """Finds about the k nearest for each query float32 [q, d]; what is found is scored exactly."""
    beside = [(part, part.mask(wanted)) for part in view.beside()]
    lists = [index.proposals(queries, k, wanted) for index in view.indexes]
    scanned = nearest(beside, queries, k)
    available = view.count if wanted is None else len(wanted)
    found = [
        _merged(view, query, [one[i] for one in lists], scanned[i], k, wanted)
        for i, query in enumerate(queries)
    ]
    short = [i for i, one in enumerate(found) if len(one.keys) < min(k, available)]
    if short:
        for i, one in zip(short, view.search(queries[short], k, wanted), strict=True):
            found[i] = one
    return found


def _merged(
    view: View, query: Vectors, proposed: list[Keys], scanned: Found, k: int, wanted: Keys | None
) -> Found:
    keys = np.concatenate(proposed)
    if wanted is not None:
        places = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
        keys = keys[wanted[places] == keys]
    keys, vectors = view.locate(keys)
    new = ~np.isin(keys, scanned.keys)
    scores = exact_scores(query, vectors[new])
    keys, scores = np.concatenate([scanned.keys, keys[new]]), np.concatenate([scanned.scores, scores])
    return best(keys, scores, k) if len(keys) else NOTHING
