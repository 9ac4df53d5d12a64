"""Searches through approximate indexes.

An index proposes, the view disposes: proposals are looked up, scored exactly and merged with a scan of the
stretches that no index covers. A query for which too few proposals are left is answered by an exact scan, so
that k hits come back whenever k items fit.
"""

from __future__ import annotations

import numpy as np

from lookalike_server.parts import Keys, Vectors
from lookalike_server.scan import Found, best, exact_scores, nearest
from lookalike_server.view import View

# When a filter leaves less than this share of the items, those that fit are scanned: indexes would miss some.
SELECTIVE = 0.1
# Proposals for each query beyond those that are needed, of an index whose rows are not all alive.
_SPARE = 8


def worthwhile(view: View, wanted: Keys | None) -> bool:
    """Whether the view's indexes would help."""
    return bool(view.indexes) and (wanted is None or len(wanted) >= SELECTIVE * view.count)


def propose(view: View, queries: Vectors, k: int, wanted: Keys | None) -> list[Found]:
    """Finds about the k nearest for each query float32 [q, d]; what is found is scored exactly."""
    found = _scored(view, queries, _proposed(view, queries, k, wanted), k)
    if view.bare_count:
        scanned = nearest([(part, part.mask(wanted)) for part in view.beside], queries, k)
        found = [
            best(one.keys + other.keys, one.scores + other.scores, k)
            for one, other in zip(found, scanned, strict=True)
        ]
    needed = min(k, view.count if wanted is None else len(wanted))
    short = [i for i, one in enumerate(found) if len(one.keys) < needed]
    if short:
        for i, one in zip(short, view.search(queries[short], k, wanted), strict=True):
            found[i] = one
    return found


def _proposed(view: View, queries: Vectors, k: int, wanted: Keys | None) -> Keys:
    """What the indexes propose together: int64 [q, m], -1 where there is nothing."""
    each = [
        index.proposals(queries, k, wanted, _SPARE if touched else 0)
        for index, touched in zip(view.indexes, view.touched, strict=True)
    ]
    keys = each[0] if len(each) == 1 else np.concatenate(each, axis=1)
    if wanted is not None:
        places = np.minimum(wanted.searchsorted(keys), len(wanted) - 1)
        keys = np.where(wanted[places] == keys, keys, -1)
    return keys


def _scored(view: View, queries: Vectors, proposed: Keys, k: int) -> list[Found]:
    """Returns the k best of the keys [q, m] that are alive, and all that tie with the last of them."""
    vectors = np.empty((proposed.shape[1], view.dimension))  # of one query: it stays in the processor's cache
    found = []
    for query, keys in zip(queries, proposed.tolist(), strict=True):
        alive = view.gather(keys, vectors)
        found.append(best(alive, exact_scores(query, vectors[: len(alive)]).tolist(), k))
    return found
