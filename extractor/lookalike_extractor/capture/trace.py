"""What every capture yields: a graph of one mode of a model, its nodes' labels, its modules' values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from lookalike_extractor.naming import READINGS, Label, Reading


@dataclass(frozen=True)
class Moment:
    """A value as it was at one time: `value` holds nodes of the graph, `after` is the last node run."""

    value: Any
    after: fx.Node


@dataclass
class Trace:
    """One mode of a model as a graph.

    `labels` are in the order of execution; nodes that hold constants have none. `returned` has the paths of
    the modules that were called. `exits` has what each of them returned at its latest call, also those
    without a node of their own, and what ran last under each path that is never called itself, such as a
    ModuleList. `constants` are the tensors that the graph uses and the model does not hold.
    """

    graph: fx.Graph
    labels: dict[fx.Node, Label] = field(default_factory=dict)
    returned: set[str] = field(default_factory=set)
    exits: dict[str, Moment] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)

    def names(self, reading: Reading) -> dict[str, fx.Node]:
        """Nodes by name, in the order of execution."""
        return dict(zip(READINGS[reading](self.labels.values(), self.returned), self.labels, strict=True))

    def leave(self, path: str, value: Any, after: fx.Node) -> None:
        """Notes that the module at `path` has returned `value`."""
        moment = Moment(value, after)
        self.returned.add(path)
        for prefix in prefixes(path):
            self.exits[prefix] = moment


@dataclass(frozen=True)
class Traces:
    """Both modes of a model, captured in one way."""

    train: Trace
    eval: Trace

    def items(self) -> Iterator[tuple[str, Trace]]:
        return iter((("train", self.train), ("eval", self.eval)))


def prefixes(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]


def nodes_in(value: Any) -> list[fx.Node]:
    """The nodes inside a structure of values, in order."""
    found: list[fx.Node] = []

    def collect(node: fx.Node) -> fx.Node:
        found.append(node)
        return node

    fx.node.map_arg(value, collect)
    return found
