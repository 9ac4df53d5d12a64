"""Threads and tasks that cannot be lost."""

from __future__ import annotations

import asyncio
import logging
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
