"""What a check of an installation finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """Attributes:
    advice: what to do; "" when there is nothing to do.
    """

    check: str
    state: State
    message: str
    advice: str = ""


class Doubt(Exception):
    """A finding that is not ok: its state, what was found, what to do."""

    def __init__(self, state: State, message: str, advice: str) -> None:
        super().__init__(message)
        self.finding = (state, message, advice)
