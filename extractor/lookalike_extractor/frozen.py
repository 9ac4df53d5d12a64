"""Graphs as flat tuples: what copies and pickles of an extractor carry. No links to recurse into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx


@dataclass(frozen=True)
class Ref:
    """Stands for the node at `index` among the arguments of a later one."""

    index: int


@dataclass(frozen=True)
class FrozenGraph:
    """The nodes of a graph in order: (operation, target, arguments, keyword arguments, name, node name)."""

    nodes: tuple[tuple[str, Any, Any, Any, str, str], ...]
    codegen: Any

    @classmethod
    def of(cls, graph: fx.Graph) -> FrozenGraph:
        index: dict[fx.Node, Any] = {node: Ref(number) for number, node in enumerate(graph.nodes)}

        def record(node: fx.Node) -> tuple[str, Any, Any, Any, str, str]:
            args, kwargs = (fx.node.map_arg(part, index.__getitem__) for part in (node.args, node.kwargs))
            return node.op, node.target, args, kwargs, node.name, node.meta.get("node_name", "")

        return cls(tuple(record(node) for node in graph.nodes), graph._codegen)

    def thaw(self) -> fx.Graph:
        graph = fx.Graph()
        graph._codegen = self.codegen
        made: list[fx.Node] = []

        def resolve(item: Any) -> Any:
            return made[item.index] if isinstance(item, Ref) else item

        for op, target, args, kwargs, name, node_name in self.nodes:
            args, kwargs = (fx.node.map_aggregate(part, resolve) for part in (args, kwargs))
            made.append(graph.create_node(op, target, args, kwargs, name))
            made[-1].meta["node_name"] = node_name
        return graph
