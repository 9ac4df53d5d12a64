"""Who may come in: calls of a collection that is open, and nobody once it is closed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lookalike_extractor.errors import LookalikeError


class Gate:
    """Counts who is inside. Whoever comes after `close` gets the reason; `wait_empty` waits for the rest."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._reason: LookalikeError | None = None

    @contextmanager
    def inside(self) -> Iterator[None]:
        with self._changed:
            self._check()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                if not self._inside:
                    self._changed.notify_all()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps the gate as it is, for a moment."""
        with self._changed:
            self._check()
            yield

    def _check(self) -> None:
        if self._reason is not None:
            raise self._reason

    def close(self, reason: LookalikeError) -> bool:
        """Returns False when it was closed already."""
        with self._changed:
            if self._reason is not None:
                return False
            self._reason = reason
            return True

    def wait_empty(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._inside)
