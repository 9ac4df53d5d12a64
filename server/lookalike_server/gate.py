"""Who may come in: calls of a collection that is open, and nobody once it is closed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lookalike_extractor.errors import LookalikeError


class Gate:
    """Counts who is inside: `with gate:`. After `close` nobody comes in; `wait_empty` waits for the rest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._inside = 0
        self._reason: LookalikeError | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._check()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._reason is not None and not self._inside:
                self._left.notify_all()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps the gate as it is, for a moment."""
        with self._lock:
            self._check()
            yield

    def _check(self) -> None:
        if self._reason is not None:
            raise self._reason

    def close(self, reason: LookalikeError) -> bool:
        """Who comes from now on gets the reason. Returns False when it was closed already."""
        with self._lock:
            if self._reason is not None:
                return False
            self._reason = reason
            return True

    def wait_empty(self) -> None:
        """To be called once it is closed."""
        with self._left:
            self._left.wait_for(lambda: not self._inside)
