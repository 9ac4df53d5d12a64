"""From a model to its graph: a chain of captures, of which the first that works is used.

1. `symbolic`: the forward runs on proxies. Any input size, any batch size.
2. `symbolic with timm's leaves`: the same, not tracing through what timm registers as untraceable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from lookalike_extractor.capture.report import CaptureReport, Rejection
from lookalike_extractor.capture.symbolic import trace_symbolically, with_timm_leaves
from lookalike_extractor.capture.trace import Traces
from lookalike_extractor.errors import CaptureFailed


@dataclass(frozen=True)
class Captured:
    """The graphs of both modes, and how they were obtained."""

    traces: Traces
    report: CaptureReport


def capture(
    model: nn.Module, options: dict[str, Any] | None = None, concrete_args: dict[str, Any] | None = None
) -> Captured:
    """Both modes of `model` by the first capture that works. The model is left as it was found.

    Raises:
        CaptureFailed: no capture works; the message has the reason of each.
    """
    rejected: list[Rejection] = []
    for name, attempt in _chain(model, options or {}, concrete_args):
        try:
            return Captured(attempt(), CaptureReport(name, tuple(rejected)))
        except Exception as error:  # anything at all may come out of a model's forward
            rejected.append(Rejection.of(name, error))
    reasons = "\n".join(f"  {rejection}" for rejection in rejected)
    raise CaptureFailed(f"{type(model).__name__} cannot be turned into a graph:\n{reasons}")


def _chain(
    model: nn.Module, options: dict[str, Any], concrete_args: dict[str, Any] | None
) -> Iterator[tuple[str, Callable[[], Traces]]]:
    yield "symbolic", lambda: trace_symbolically(model, options, concrete_args)
    with_leaves = with_timm_leaves(options)
    if with_leaves is not None:
        yield "symbolic with timm's leaves", lambda: trace_symbolically(model, with_leaves, concrete_args)
