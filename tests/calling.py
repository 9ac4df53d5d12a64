"""Callers who go on whatever becomes of the servers they call."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from lookalike import Client

_CALLERS, _SECONDS = 4, 60


@dataclass
class Callers:
    """Attributes:
    done: calls that were answered.
    failures: each has ended one of the callers.
    """

    done: int = 0
    failures: list[BaseException] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def embed(self, client: Client, picture: bytes) -> None:
        try:
            while not self.ended.is_set():
                client.embed(picture)
                with self._counting:
                    self.done += 1
        except BaseException as error:
            self.failures.append(error)

    def wait(self, calls: int) -> None:
        """Returns when so many more were answered, or one has failed."""
        until, limit = self.done + calls, time.monotonic() + _SECONDS
        while self.done < until and not self.failures:
            assert time.monotonic() < limit, f"{until - self.done} of {calls} calls were not answered"
            time.sleep(0.01)


@contextmanager
def calling(target: str, picture: bytes) -> Iterator[Callers]:
    """Callers who share a client and embed the picture until the end."""
    callers = Callers()
    with Client(target) as client, ThreadPoolExecutor(_CALLERS) as pool:
        for _ in range(_CALLERS):
            pool.submit(callers.embed, client, picture)
        try:
            yield callers
        finally:
            callers.ended.set()
