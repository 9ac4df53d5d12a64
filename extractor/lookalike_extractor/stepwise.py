"""Changing a module step by step, each held against what it gave at first."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from .agreement import Precision, TapError, expected, shortfall, worst_errors
from .errors import VerificationFailed


@dataclass(frozen=True)
class Step:
    """One change.

    Attributes:
        name: as "fold batch norm".
        kept: False when it was taken back or not tried.
        errors: how far each output then was from the original, by key.
        seconds: that the step took, its check included.
        reason: why it was not kept.
    """

    name: str
    kept: bool
    errors: Mapping[str, TapError]
    seconds: float
    reason: str = ""

    def __str__(self) -> str:
        verdict = "kept" if self.kept else f"not kept: {self.reason}"
        return "\n".join(
            [f"{self.name}, {self.seconds:.1f} s: {verdict}"]
            + [f"  {key}: {error}" for key, error in self.errors.items()]
        )


@dataclass(frozen=True)
class Change:
    """One thing to try.

    Attributes:
        precision: what the module computes in with it; None: as before.
        obstacle: why not even to try.
        required: without it there is no result.
    """

    name: str
    apply: Callable[[nn.Module], nn.Module]
    precision: Precision | None = None
    obstacle: str = ""
    required: bool = False


class Progress:
    """The module so far, and the answers it must keep giving."""

    def __init__(self, module: nn.Module, example: Tensor, limits: Mapping[str, float]) -> None:
        self.module = module
        self.precision: Precision = "fp32"
        self.steps: list[Step] = []
        self._limits = limits
        self._expected = expected(module, example)

    def take(self, change: Change) -> None:
        """Makes a change, and keeps it if the outputs are still good.

        Raises:
            VerificationFailed: they are not, and the change is required.
        """
        if change.obstacle:
            self.steps.append(Step(change.name, False, {}, 0.0, change.obstacle))
            return
        started = time.perf_counter()
        precision = change.precision or self.precision
        module = change.apply(self.module)
        errors = worst_errors(self._expected, module)
        short = shortfall(errors, self._limits[precision])
        if short and change.required:
            raise VerificationFailed(f"{change.name} in {precision}: {short}")
        self.steps.append(Step(change.name, not short, errors, time.perf_counter() - started, short))
        if not short:
            self.module, self.precision = module, precision
