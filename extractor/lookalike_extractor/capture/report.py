"""Which way of capturing a model was used, and what stopped the ways before it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

import torch

_OWN = str(Path(__file__).parent.parent)
_TORCH = str(Path(torch.__file__).parent)


@dataclass(frozen=True)
class Rejection:
    """A capture that did not work: what stopped it, and where in the model's code, if known."""

    capture: str
    reason: str
    file: str = ""
    line: int = 0
    statement: str = ""

    @classmethod
    def of(cls, capture: str, error: BaseException) -> Rejection:
        reason = f"{type(error).__name__}: {error}".split("\n\n")[0]
        frames = [
            f
            for f in traceback.extract_tb(error.__traceback__)
            if not f.filename.startswith((_OWN, _TORCH, "<"))
        ]
        if not frames:
            return cls(capture, reason)
        return cls(capture, reason, frames[-1].filename, frames[-1].lineno or 0, frames[-1].line or "")

    def __str__(self) -> str:
        place = f"\n    {self.file}:{self.line}: {self.statement}" if self.file else ""
        return f"{self.capture}: {self.reason}{place}"


@dataclass(frozen=True)
class CaptureReport:
    """The capture that was used, and why the ones tried before it were not."""

    used: str
    rejected: tuple[Rejection, ...] = ()

    def __str__(self) -> str:
        return "\n".join(
            [f"captured: {self.used}", *(f"rejected: {rejection}" for rejection in self.rejected)]
        )
