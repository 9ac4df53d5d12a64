"""`create_feature_extractor` and `get_graph_node_names`: torchvision's contract, kept."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from lookalike_extractor.capture import Captured, capture
from lookalike_extractor.capture.trace import Traces
from lookalike_extractor.errors import RequestInvalid
from lookalike_extractor.extractor import FeatureExtractor
from lookalike_extractor.naming import READINGS, Reading
from lookalike_extractor.pruning import cut
from lookalike_extractor.requests import NodeRequest, Resolver, requests_by_mode
from lookalike_extractor.tracing import tracer_options


def get_graph_node_names(
    model: nn.Module,
    tracer_kwargs: dict[str, Any] | None = None,
    suppress_diff_warning: bool = False,
    concrete_args: dict[str, Any] | None = None,
    *,
    names: Reading = "exact",
) -> tuple[list[str], list[str]]:
    """The names of all nodes in the order of execution, in train mode and in eval mode.

    A name is the dotted path of the module being executed, then the operation; a leaf module is its path
    alone; repeats get `_1`, `_2`, ... counted within the direct parent. Leaf modules are those of `torch.nn`
    and `torchvision.ops`. The model is left as it was.

    Args:
        tracer_kwargs: `leaf_modules`, `autowrap_functions`, `autowrap_modules`, `param_shapes_constant`.
        suppress_diff_warning: do not warn when the modes differ.
        concrete_args: arguments of the model's forward to fix, by name.
        names: "exact", or "torchvision" for the names that torchvision gives (see
            `lookalike_extractor.naming`).

    Raises:
        CaptureFailed: the model cannot be turned into a graph.
    """
    _check(model, names)
    traces = capture(model, tracer_options(tracer_kwargs), concrete_args).traces
    train, eval_ = list(traces.train.names(names)), list(traces.eval.names(names))
    if not suppress_diff_warning:
        _warn_of_differences(train, eval_)
    return train, eval_


def create_feature_extractor(
    model: nn.Module,
    return_nodes: NodeRequest | None = None,
    train_return_nodes: NodeRequest | None = None,
    eval_return_nodes: NodeRequest | None = None,
    tracer_kwargs: dict[str, Any] | None = None,
    suppress_diff_warning: bool = False,
    concrete_args: dict[str, Any] | None = None,
    *,
    names: Reading = "exact",
) -> FeatureExtractor:
    """A module that computes the values of chosen nodes of `model`, and nothing else.

    Its forward takes what the model takes and returns {key: value}, in the order of execution. It shares the
    model's parameters and buffers, keeps only those that the nodes need, under the same names, and is in the
    model's mode; `train()` and `eval()` switch between the graphs of the two modes.

    Args:
        model: left untouched.
        return_nodes: names of nodes, or {name: key}. The path of a module, as `layer4`, means what it
            returns.
        train_return_nodes, eval_return_nodes: both together instead, where the modes differ.
        tracer_kwargs, suppress_diff_warning, concrete_args, names: as of `get_graph_node_names`.

    Raises:
        NodeUnknown: there is no such node; the message has the nearest names.
        RequestInvalid: the request is empty, contradicts itself, or names what is no tensor.
        CaptureFailed: the model cannot be turned into a graph.
    """
    _check(model, names)
    requests = requests_by_mode(return_nodes, train_return_nodes, eval_return_nodes)
    captured = capture(model, tracer_options(tracer_kwargs), concrete_args)
    extractor = _build(model, captured, requests, names)
    if not suppress_diff_warning:
        _warn_of_differences(*(list(trace.names(names)) for _, trace in captured.traces.items()))
    return extractor


def _check(model: nn.Module, names: str) -> None:
    if not isinstance(model, nn.Module):
        raise RequestInvalid(f"A torch.nn.Module is needed, not {type(model).__name__}.")
    if names not in READINGS:
        raise RequestInvalid(f"names={names!r} is not one of {', '.join(map(repr, READINGS))}.")


def _build(
    model: nn.Module, captured: Captured, requests: dict[str, dict[str, str]], names: Reading
) -> FeatureExtractor:
    resolver = Resolver(captured.traces, names)
    graphs = {}
    for mode, trace in captured.traces.items():
        taps = {key: resolver.resolve(mode, name) for name, key in requests[mode].items()}
        by_node = {node: name for name, node in trace.names(names).items()}
        graphs[mode] = cut(trace, taps, model.get_submodule, by_node)
    return FeatureExtractor(
        model, graphs["train"], graphs["eval"], _constants(captured.traces), captured.report
    )


def _constants(traces: Traces) -> dict[str, Any]:
    return traces.train.constants | traces.eval.constants


def _warn_of_differences(train: list[str], eval_: list[str]) -> None:
    if train == eval_:
        return
    if _is_subsequence(eval_, train):
        how = "The nodes of eval mode are a subsequence of those of train mode."
    elif _is_subsequence(train, eval_):
        how = "The nodes of train mode are a subsequence of those of eval mode."
    else:
        how = "The nodes of train mode and of eval mode differ."
    advice = "Where a node is in one mode only, choose nodes with train_return_nodes and eval_return_nodes."
    warnings.warn(f"{how} {advice}", stacklevel=3)


def _is_subsequence(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(name in rest for name in part)
