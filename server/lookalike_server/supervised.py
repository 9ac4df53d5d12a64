"""Threads and tasks that cannot be lost."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable

from lookalike_server.jobs import Job

_log = logging.getLogger(__name__)


async def forever(turn: Callable[[], Awaitable[None]]) -> None:
    """Takes turns until it is cancelled; one that fails is logged."""
    while True:
        try:
            await turn()
        except Exception:
            _log.exception("a task of the engine failed, and goes on")
            await asyncio.sleep(1)


class Stage:
    """Takes turns in a thread of its own until one says that it was the last.

    When a turn raises, whatever it is, `failed` is told in that thread, and the next turn begins.

    Attributes:
        hand: the jobs that would be lost with the turn; the turn keeps it true.
    """

    def __init__(
        self, name: str, turn: Callable[[Stage], bool], failed: Callable[[Stage, BaseException], None]
    ) -> None:
        self.name = name
        self.hand: list[Job] = []
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._turn, self._failed = turn, failed

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float | None) -> None:
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            try:
                if not self._turn(self):
                    return
            except BaseException as error:
                self._failed(self, error)
                self.hand = []
                time.sleep(0.01)  # a turn that fails at its first step must not take a whole core


class Decoder(Stage):
    """One thread, and what it has in hand. Only what the lock guards is touched from outside.

    Attributes:
        left: it hung, and another has taken over.
    """

    def __init__(
        self, name: str, turn: Callable[[Stage], bool], failed: Callable[[Stage, BaseException], None]
    ) -> None:
        super().__init__(name, turn, failed)
        self.left = False
        self._lock = threading.Lock()
        self._began = math.inf
        self._job: Job | None = None
        self._ready: list[Job] = []
        self._rest: list[Job] = []

    def begin(self, job: Job, ready: list[Job], rest: list[Job]) -> None:
        with self._lock:
            self._job, self._ready, self._rest, self._began = job, ready, rest, time.monotonic()

    def end(self) -> bool:
        """False when it took so long that another has taken over."""
        with self._lock:
            self._began = math.inf
            return not self.left

    def leave(self, seconds: float) -> tuple[Job, list[Job], list[Job]] | None:
        """Leaves it behind if it has been at one image for so long.

        Returns that image, those it has decoded and not handed on, and those it has not begun.
        """
        with self._lock:
            if time.monotonic() - self._began < seconds or self._job is None:
                return None
            self.left = True
            return self._job, self._ready, self._rest

    def alive(self) -> bool:
        return self._thread.is_alive()
