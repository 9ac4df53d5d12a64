"""Whether a front-end still answers: one whose event loop hangs holds its callers without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

ASK_SECONDS = 5.0
"""Between two questions."""

MOST_UNANSWERED = 6
"""Questions in a row, after which a front-end is given up: longer by far than a busy machine delays one."""


class Pulse:
    """Asks now and then, and counts what was not answered; anything that comes is an answer.

    Questions are counted and not seconds: if this process is the one that was held up, it has not asked.

    Args:
        ask: sends a question.
    """

    def __init__(self, ask: Callable[[], object]) -> None:
        self._ask = ask
        self._unanswered = 0

    def heard(self) -> None:
        """Something has come."""
        self._unanswered = 0

    async def stopped(self) -> None:
        """Returns once too many questions in a row were not answered."""
        while self._unanswered < MOST_UNANSWERED:
            self._unanswered += 1
            self._ask()
            await asyncio.sleep(ASK_SECONDS)
