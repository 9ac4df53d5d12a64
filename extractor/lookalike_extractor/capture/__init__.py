"""From a model to its graph: a chain of captures, of which the first that works is used.

1. `symbolic`: the forward runs on proxies. Any input size, any batch size.
2. `symbolic with timm's leaves`: the same, not tracing through what timm registers as untraceable.
3. `recorded`: the forward runs once on fake tensors, its batch size a symbol. Other sizes are refused.
4. `hooks`: no graph; the model itself runs, and its modules' outputs are taken.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from lookalike_extractor.capture.hooks import ModuleCalls, module_calls
from lookalike_extractor.capture.report import CaptureReport, Rejection
from lookalike_extractor.capture.symbolic import trace_symbolically, with_timm_leaves
from lookalike_extractor.capture.trace import Traces
from lookalike_extractor.errors import CaptureFailed
from lookalike_extractor.inputs import Inputs, example_for

# Captures patch nn.Module for their time; two at once would undo each other's patches in the wrong order.
_one_at_a_time = threading.RLock()


@dataclass(frozen=True)
class Captured:
    """The graphs of both modes, or the calls of its modules where there are none, and how they were obtained.

    `options` are those of the tracer that was used in the end.
    """

    found: Traces | ModuleCalls
    report: CaptureReport
    options: dict[str, Any]

    @property
    def traces(self) -> Traces:
        if isinstance(self.found, ModuleCalls):
            raise CaptureFailed(f"This model has no graph, only modules to hook.\n{self.report}")
        return self.found


def capture(
    model: nn.Module,
    options: dict[str, Any] | None = None,
    concrete_args: dict[str, Any] | None = None,
    example_inputs: Any = None,
) -> Captured:
    """Both modes of `model` by the first capture that works. The model is left as it was found.

    Raises:
        CaptureFailed: no capture works; the message has the reason of each.
    """
    rejected: list[Rejection] = []
    for name, used, attempt in _chain(model, options or {}, concrete_args, example_inputs):
        try:
            with _one_at_a_time, _uncollected():
                return Captured(attempt(), CaptureReport(name, tuple(rejected)), used)
        except Exception as error:  # anything at all may come out of a model's forward
            rejected.append(Rejection.of(name, error))
    reasons = "\n".join(f"  {rejection}" for rejection in rejected)
    raise CaptureFailed(f"{type(model).__name__} cannot be captured:\n{reasons}")


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection, which would walk the growing graph, of which nothing is garbage, and take a
    third of the time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


_Attempt = tuple[str, dict[str, Any], Callable[[], Traces | ModuleCalls]]


def _chain(
    model: nn.Module, options: dict[str, Any], concrete_args: dict[str, Any] | None, example_inputs: Any
) -> Iterator[_Attempt]:
    given = 1 if example_inputs is None else len(example_for(model, example_inputs))
    yield "symbolic", options, lambda: trace_symbolically(model, options, concrete_args, given)
    known = with_timm_leaves(options)
    if known is not None:
        yield (
            "symbolic with timm's leaves",
            known,
            lambda: trace_symbolically(model, known, concrete_args, given),
        )
    if concrete_args is None:
        inputs = example_for(model, example_inputs)
        yield "recorded", options, lambda: _recorded(model, inputs, options)
        yield "hooks", options, lambda: module_calls(model, inputs, options)


def _recorded(model: nn.Module, inputs: Inputs, options: dict[str, Any]) -> Traces:
    from lookalike_extractor.capture.recorded import record  # here, because sympy takes half a second

    return record(model, inputs, options)
