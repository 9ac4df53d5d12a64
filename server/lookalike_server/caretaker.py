"""A thread that works when it is woken, for what may come late and may fail: copies of what the store has."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress

_RETRY_SECONDS = 60.0

_log = logging.getLogger(__name__)


class Caretaker:
    """A thread of a collection.

    Args:
        name: of the thread.
        work: does all there is to do, or what it can until `stopping`. What it raises is logged, and it is
            called again a minute later.
        trouble: what to log then.
        niceness: 1 to 19 lets other threads go first; 0 leaves it as it is.
    """

    def __init__(self, name: str, work: Callable[[], None], trouble: str, *, niceness: int = 0) -> None:
        self._work = work
        self._trouble = trouble
        self._niceness = niceness
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._stage, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Tells that there may be something to do."""
        self._wake.set()

    def stopping(self) -> bool:
        return self._stop.is_set()

    def close(self) -> None:
        """Returns when the work under way has ended."""
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def _stage(self) -> None:
        if self._niceness:
            with suppress(OSError, AttributeError):  # a courtesy: searches and writes go first
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            try:
                self._work()
            except Exception:
                _log.warning("%s", self._trouble, exc_info=True)
                self._stop.wait(_RETRY_SECONDS)
                self._wake.set()
