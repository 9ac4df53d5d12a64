"""The truth about a model's values, taken from the model while it runs: what extractors are held against."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils._pytree import tree_map_only

from lookalike_extractor.capture.interception import Interception
from lookalike_extractor.capture.trace import Trace, prefixes
from lookalike_extractor.naming import Label, operation_name

_NUMBER_METHODS = frozenset({"size", "dim", "numel", "stride", "item", "__len__"})
_NUMBER_ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device"})


@dataclass(frozen=True)
class Place:
    """Where a value is seen in a run: at the `count`-th tensor with `label`, or what `module` returns."""

    label: Label | None = None
    count: int = 0
    module: str = ""


def places(trace: Trace) -> dict[fx.Node, Place]:
    """Where in a run each node's value is seen. Numbers are left out: they pass unseen."""
    counts: Counter[Label] = Counter()
    found: dict[fx.Node, Place] = {}
    numbers: set[fx.Node] = set()
    for node in trace.graph.nodes:
        if _is_number(node, numbers):
            numbers.add(node)
        elif node in trace.labels:
            label = trace.labels[node]
            found[node] = Place(label, counts[label])
            counts[label] += 1
    return found


def _is_number(node: fx.Node, numbers: set[fx.Node]) -> bool:
    if node.op == "call_method" and node.target in _NUMBER_METHODS:
        return True
    if node.target is getattr and node.args[1] in _NUMBER_ATTRIBUTES:
        return True
    sources = node.all_input_nodes
    return node.op == "call_function" and bool(sources) and numbers.issuperset(sources)


class Observer(Interception):
    """Keeps copies of the values at the wanted places of one run."""

    def __init__(self, root: nn.Module, options: dict[str, Any], wanted: Collection[Place]) -> None:
        super().__init__(root, options)
        self._wanted = set(wanted)
        self._counts: Counter[Label] = Counter()
        self.seen: dict[Place, Any] = {}

    def note_inputs(self, inputs: Sequence[Any]) -> None:
        for name, value in zip(inspect.signature(self._root.forward).parameters, inputs, strict=False):
            self._note(Label("", operation_name(name)), value)

    def run(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Runs it as if nobody watched: some modules take another path where somebody does."""
        with torch._C.DisableTorchFunction():
            return function(*args, **kwargs)

    def called(self, label: Label, function: Callable[..., Any], args: Any, kwargs: Any, value: Any) -> None:
        self._note(label, value)

    def ran(self, path: str, args: Any, kwargs: Any, value: Any) -> None:
        self.left(path, value)

    def left(self, path: str, value: Any) -> None:
        self._note(Label(path), value)
        for prefix in prefixes(path):
            self._keep(Place(module=prefix), value)

    def _note(self, label: Label, value: Any) -> None:
        self._keep(Place(label, self._counts[label]), value)
        self._counts[label] += 1

    def _keep(self, place: Place, value: Any) -> None:
        if place in self._wanted:
            self.seen[place] = tree_map_only(torch.Tensor, torch.clone, value)
