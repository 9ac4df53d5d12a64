"""The module that an extraction yields."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Self

from torch import Tensor, fx, nn

from lookalike_extractor.capture.report import CaptureReport
from lookalike_extractor.frozen import FrozenGraph
from lookalike_extractor.verification import Verification


class FeatureExtractor(fx.GraphModule):
    """A module with a graph for each mode, over parameters shared with the model it came from.

    `train()` and `eval()` switch the graph. Copies, pickles and saved files keep both graphs and the mode.

    Attributes:
        train_graph, eval_graph: the graphs; each node's `meta["node_name"]` is its name.
        capture: how the model was captured, and why not otherwise.
        verification: how the extractor compared with its model; None where that was not asked for.
    """

    train_graph: fx.Graph
    eval_graph: fx.Graph
    capture: CaptureReport
    verification: Verification | None

    def __init__(
        self,
        model: nn.Module,
        train_graph: fx.Graph,
        eval_graph: fx.Graph,
        constants: Mapping[str, Tensor],
        report: CaptureReport,
    ) -> None:
        nn.Module.__init__(self)
        self.training = model.training
        for graph in (train_graph, eval_graph):
            _share(
                model,
                self,
                constants,
                (str(n.target) for n in graph.nodes if n.op in ("get_attr", "call_module")),
            )
        self.__dict__.update(train_graph=train_graph, eval_graph=eval_graph, capture=report, meta={})
        self.verification = None
        type(self).__name__ = type(model).__name__
        self.graph = self._graph_of_mode

    def train(self, mode: bool = True) -> Self:
        """Switches to the graph of `mode`, as well as all modules."""
        super().train(mode)
        if self.graph is not self._graph_of_mode:
            self.graph = self._graph_of_mode
        return self

    @property
    def _graph_of_mode(self) -> fx.Graph:
        return self.train_graph if self.training else self.eval_graph

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureExtractor:
        memo[id(self)] = twin = _blank(type(self).__name__)
        twin.__setstate__(copy.deepcopy(self._state(), memo))
        return twin

    def __copy__(self) -> FeatureExtractor:
        twin = _blank(type(self).__name__)
        twin.__setstate__(self._state())
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        return _blank, (type(self).__name__,), self._state()

    def __setstate__(self, state: dict[str, Any]) -> None:
        graphs = {name: state[name].thaw() for name in ("train_graph", "eval_graph")}
        nn.Module.__setstate__(self, state | graphs)
        self.graph = self._graph_of_mode

    def _state(self) -> dict[str, Any]:
        derived = {
            "_graph",
            "_code",
            "_lineno_map",
            "_prologue_start",
        }  # compiled again from the graph of the mode
        kept = {name: value for name, value in self.__dict__.items() if name not in derived}
        return kept | {name: FrozenGraph.of(kept[name]) for name in ("train_graph", "eval_graph")}


def _blank(name: str) -> FeatureExtractor:
    extractor: FeatureExtractor = FeatureExtractor.__new__(FeatureExtractor)
    type(extractor).__name__ = name
    return extractor


def _share(
    model: nn.Module, into: nn.Module, constants: Mapping[str, Tensor], targets: Iterable[str]
) -> None:
    """Hangs what is at each path of `model` at the same path of `into`, and the constants beside it."""
    for target in targets:
        if target in constants:
            if not hasattr(into, target):
                into.register_buffer(target, constants[target], persistent=False)
        else:
            _share_one(model, into, target)


def _share_one(source: nn.Module, into: nn.Module, target: str) -> None:
    *path, name = target.split(".")
    for part in path:
        child = source.get_submodule(part)
        if into._modules.get(part) is child:
            return  # the whole child is shared already
        if part not in into._modules:
            into.add_module(part, nn.Module())
        source, into = child, into.get_submodule(part)
    value = getattr(source, name)
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        into.register_buffer(name, value, persistent=name not in source._non_persistent_buffers_set)
    else:
        setattr(into, name, value)
