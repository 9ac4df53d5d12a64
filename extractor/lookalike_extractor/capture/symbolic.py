"""Captures by symbolic tracing: the whole forward runs on proxies, once in each mode."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn

from lookalike_extractor.capture.trace import Trace, Traces
from lookalike_extractor.preservation import preserved
from lookalike_extractor.tracing import NodeTracer


def trace_symbolically(
    model: nn.Module, options: dict[str, Any], concrete_args: dict[str, Any] | None = None, given: int = 1
) -> Traces:
    """Both modes of `model`, with `options` of NodeTracer, for calls with `given` arguments.

    Raises:
        AssumesArgument: the forward asks whether a further argument is None, and would go the other way.
    """
    traces = Traces(*(_trace(model, training, options, concrete_args) for training in (True, False)))
    _check_arguments(traces.train, given)
    _check_arguments(traces.eval, given)
    return traces


class AssumesArgument(Exception):
    """A trace in which an optional argument is taken as given, because a proxy is not None."""


def _check_arguments(trace: Trace, given: int) -> None:
    placeholders = [node for node in trace.graph.nodes if node.op == "placeholder"]
    for node in placeholders[given:]:
        if node.args == (None,) and node.users:
            raise AssumesArgument(f"the forward uses argument {node.target!r} as if it were given")


def _trace(
    model: nn.Module, training: bool, options: dict[str, Any], concrete_args: dict[str, Any] | None
) -> Trace:
    with preserved(model):
        model.train(training)
        return NodeTracer(**options).capture(model, concrete_args)


def with_timm_leaves(options: dict[str, Any]) -> dict[str, Any] | None:
    """`options` with what timm registers as not to be traced through; None where timm is not in use."""
    registry = sys.modules.get("timm.layers")
    if registry is None:
        return None
    return options | {
        "leaf_modules": [*options.get("leaf_modules", ()), *registry.get_notrace_modules()],
        "autowrap_functions": [*options.get("autowrap_functions", ()), *registry.get_notrace_functions()],
    }
