"""`create_feature_extractor` and `get_graph_node_names`: torchvision's contract, kept."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from lookalike_extractor.capture import Captured, capture
from lookalike_extractor.capture.hooks import HookedExtractor, ModuleCalls
from lookalike_extractor.capture.observer import Place
from lookalike_extractor.capture.trace import Moment
from lookalike_extractor.errors import NodeUnknown, RequestInvalid, did_you_mean
from lookalike_extractor.extractor import FeatureExtractor
from lookalike_extractor.naming import READINGS, Label, Reading
from lookalike_extractor.pruning import cut
from lookalike_extractor.requests import NodeRequest, Resolver, requests_by_mode
from lookalike_extractor.tracing import tracer_options
from lookalike_extractor.verification import verify as hold_against


def get_graph_node_names(
    model: nn.Module,
    tracer_kwargs: dict[str, Any] | None = None,
    suppress_diff_warning: bool = False,
    concrete_args: dict[str, Any] | None = None,
    *,
    names: Reading = "exact",
    example_inputs: Any = None,
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
    captured = capture(model, tracer_options(tracer_kwargs), concrete_args, example_inputs)
    train, eval_ = _listed(captured, names)
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
    example_inputs: Any = None,
    verify: bool = True,
    input_node: str | None = None,
) -> FeatureExtractor | HookedExtractor:
    """A module that computes the values of chosen nodes of `model`, and nothing else.

    Its forward takes what the model takes and returns {key: value}, in the order of execution. It shares the
    model's parameters and buffers, keeps only those that the nodes need, under the same names, and is in the
    model's mode; `train()` and `eval()` switch between the graphs of the two modes.

    Args:
        model: left untouched.
        return_nodes: names of nodes, or {name: key}. The path of a module, as `layer4`, means what it
            returns.
        train_return_nodes, eval_return_nodes: both together instead, where the modes differ.
        tracer_kwargs, suppress_diff_warning, concrete_args, names, example_inputs: as of
            `get_graph_node_names`.
        verify: hold the extractor against the model at two batch sizes; `verification` has a figure per tap.
        input_node: the extractor takes the value of this node in the place of the model's input.

    Raises:
        NodeUnknown: there is no such node; the message has the nearest names.
        RequestInvalid: the request is empty, contradicts itself, or names what is no tensor; or the model
            does not run on `example_inputs`.
        CaptureFailed: the model cannot be captured.
        VerificationFailed: the extractor and the model disagree.
    """
    _check(model, names)
    requests = requests_by_mode(return_nodes, train_return_nodes, eval_return_nodes)
    captured = capture(model, tracer_options(tracer_kwargs), concrete_args, example_inputs)
    extractor: FeatureExtractor | HookedExtractor
    if isinstance(captured.found, ModuleCalls):
        extractor, taps, start = _hooked(model, captured, captured.found, requests, names, input_node)
    else:
        extractor, taps, start = _cut(model, captured, requests, names, input_node)
    if not suppress_diff_warning:
        _warn_of_differences(*_listed(captured, names))
    if verify and concrete_args is None:
        extractor.verification = hold_against(model, extractor, taps, captured.options, example_inputs, start)
    return extractor


def _listed(captured: Captured, names: Reading) -> tuple[list[str], list[str]]:
    if isinstance(captured.found, ModuleCalls):
        listed = READINGS[names](captured.found.labels, captured.found.returns)
        return listed, listed
    return list(captured.found.train.names(names)), list(captured.found.eval.names(names))


def _check(model: nn.Module, names: str) -> None:
    if not isinstance(model, nn.Module):
        raise RequestInvalid(f"A torch.nn.Module is needed, not {type(model).__name__}.")
    if names not in READINGS:
        raise RequestInvalid(f"names={names!r} is not one of {', '.join(map(repr, READINGS))}.")


Requests = dict[str, dict[str, str]]


def _cut(
    model: nn.Module, captured: Captured, requests: Requests, names: Reading, input_node: str | None
) -> tuple[FeatureExtractor, dict[str, Place | None], Place | None]:
    """The extractor, where in a run of the model its taps are seen, and where its own input is."""
    traces = captured.traces
    resolver = Resolver(traces, names)
    graphs = {}
    for mode, trace in traces.items():
        taps = {key: resolver.resolve(mode, name) for name, key in requests[mode].items()}
        start = None if input_node is None else _single(resolver.resolve(mode, input_node), input_node)
        by_node = {node: name for name, node in trace.names(names).items()}
        graphs[mode] = cut(trace, taps, model.get_submodule, by_node, start)
    constants = traces.train.constants | traces.eval.constants
    extractor = FeatureExtractor(model, graphs["train"], graphs["eval"], constants, captured.report)
    seen = {key: resolver.place("eval", name) for name, key in requests["eval"].items()}
    return extractor, seen, None if input_node is None else resolver.place("eval", input_node)


def _single(moment: Moment, name: str) -> Moment:
    if isinstance(moment.value, fx.Node):
        return moment
    raise RequestInvalid(f"Input node {name!r} has more than one value; an input must be one tensor.")


def _hooked(
    model: nn.Module,
    captured: Captured,
    calls: ModuleCalls,
    requests: Requests,
    names: Reading,
    input_node: str | None,
) -> tuple[HookedExtractor, dict[str, Place | None], None]:
    if input_node is not None:
        raise RequestInvalid(f"Only a graph can start at an input node.\n{captured.report}")
    targets = calls.targets(names)
    by_mode = {
        mode: {key: _target(targets, name) for name, key in asked.items()} for mode, asked in requests.items()
    }
    extractor = HookedExtractor(model, {True: by_mode["train"], False: by_mode["eval"]}, captured.report)
    places: dict[str, Place | None] = {
        key: Place(Label(path), n) for key, (path, n) in by_mode["eval"].items()
    }
    return extractor, places, None


def _target(targets: Mapping[str, tuple[str, int]], name: str) -> tuple[str, int]:
    if name not in targets:
        reason = "This model has no graph; only the outputs of its modules can be had."
        raise NodeUnknown(f"No module {name!r} runs. {reason}{did_you_mean(name, targets)}", node=name)
    return targets[name]


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
