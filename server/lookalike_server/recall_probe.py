"""How much of the true nearest the indexes of a collection find, of late and for the queries that come.

Now and then the last query is searched for exactly as well, in the background. Where none came an item is
taken, and left out of its own nearest: items of a graph are found more easily than queries.
"""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np

from lookalike_server.proposing import propose
from lookalike_server.rows import Descriptor
from lookalike_server.view import View

_K = 10
_KEPT = 100
# An exact search reads the whole collection: at most one a minute, and a hundredth of the time.
_LEAST_SECONDS = 60.0
_REST = 100


class RecallProbe:
    """Any thread may call it."""

    def __init__(self) -> None:
        self._shares: deque[float] = deque(maxlen=_KEPT)
        self._claiming = threading.Lock()
        self._due = 0.0
        self._query: Descriptor | None = None
        self.taken = 0
        """How many probes there were."""

    @property
    def recall(self) -> float | None:
        """Share of the ten nearest that the last 100 probes found; None before the first."""
        shares = [*self._shares]
        return sum(shares) / len(shares) if shares else None

    def see(self, query: Descriptor) -> None:
        """Takes notice of a query float32 [d] that went through the indexes."""
        self._query = query

    def claim(self) -> bool:
        """Whether it is time for a probe; who is told so takes it."""
        with self._claiming:
            due = time.monotonic() >= self._due
            if due:
                self._due = float("inf")
            return due

    def take(self, view: View) -> None:
        """Compares a search through the indexes of the view with an exact one."""
        begin = time.monotonic()
        try:
            if view.indexes and view.count > _K:
                self._shares.append(self._share(view))
                self.taken += 1
        finally:
            end = time.monotonic()
            self._due = end + max(_LEAST_SECONDS, _REST * (end - begin))

    def _share(self, view: View) -> float:
        query, own = self._query, -1
        self._query = None
        if query is None:
            own, query = _some_item(view)
        found, exact = propose(view, query[None], _K + 1, None)[0], view.search(query[None], _K + 1)[0]
        best = sorted(score for key, score in zip(*exact, strict=True) if key != own)[-_K:]
        reached = sum(key != own and score >= best[0] for key, score in zip(*found, strict=True))
        return min(reached, len(best)) / len(best)


def _some_item(view: View) -> tuple[int, Descriptor]:
    """Returns the key and the descriptor of an item, each as likely as the others."""
    number = int(np.random.default_rng().integers(view.count))
    for part in view.parts:
        if number < part.living:
            row = np.flatnonzero(part.alive)[number]
            return part.keys.item(row), part.vectors[row]
        number -= part.living
    raise LookupError("the view is empty")
