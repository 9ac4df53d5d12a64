"""Cutting a graph down to what the requested values need, without losing what acts by side effect."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.fx._symbolic_trace import _assert_is_none

from lookalike_extractor.capture.trace import Moment, Trace, nodes_in
from lookalike_extractor.effects import affected, effect
from lookalike_extractor.operations import snapshot

# A piece of memory: the node that made it, or the path of the attribute that holds it between calls.
Root = fx.Node | str

_GUARDS = frozenset({torch._assert, _assert_is_none})
_SHAPE_NAMES = frozenset({"getattr", "size", "dim", "numel", "getitem"})


@dataclass
class Memory:
    """For each node of a graph: the memory its value may share, and the memory it may overwrite."""

    shares: dict[fx.Node, frozenset[Root]]
    overwrites: dict[fx.Node, frozenset[Root]]

    @classmethod
    def of(cls, graph: fx.Graph, module_at: Callable[[str], nn.Module]) -> Memory:
        memory = cls({}, {})
        for node in graph.nodes:
            what = effect(node, module_at)
            touched = memory.behind(affected(node, what)) if what.overwrites or what.shares else frozenset()
            own = frozenset([str(node.target) if node.op == "get_attr" else node])
            memory.shares[node] = touched or own if what.shares else own
            memory.overwrites[node] = touched if what.overwrites else frozenset()
        return memory

    def behind(self, nodes: Iterable[fx.Node]) -> frozenset[Root]:
        return frozenset().union(*(self.shares[node] for node in nodes))


def cut(
    trace: Trace,
    taps: Mapping[str, Moment],
    module_at: Callable[[str], nn.Module],
    names: Mapping[fx.Node, str],
) -> fx.Graph:
    """A new graph that returns {key: value} for `taps`, in the order of execution, and runs only what they
    need.

    A tapped value that a later kept operation may overwrite is copied at its moment; nothing else is.
    """
    order = {node: index for index, node in enumerate(trace.graph.nodes)}
    memory = Memory.of(trace.graph, module_at)
    live = needed_nodes(trace.graph, list(taps.values()), memory)
    live |= _guards_before(max(order[node] for node in live), order, live)
    new = fx.Graph()
    new._codegen = copy.deepcopy(trace.graph._codegen)
    copied: dict[fx.Node, fx.Node] = {}
    answer: dict[str, Any] = {}
    for node in order:
        if node in live:
            copied[node] = new.node_copy(node, copied.__getitem__)
            copied[node].meta["node_name"] = names.get(node, "")
        for key, moment in taps.items():
            if moment.after is node:
                value = fx.node.map_arg(moment.value, copied.__getitem__)
                later = (n for n in live if order[n] > order[node])
                at_risk = memory.behind(nodes_in(moment.value))
                clash = any(memory.overwrites[n] & at_risk for n in later)
                answer[key] = new.call_function(snapshot, (value,)) if clash else value
    new.output(answer)
    return new


def needed_nodes(graph: fx.Graph, moments: Iterable[Moment], memory: Memory) -> set[fx.Node]:
    """The nodes that must run for `moments`: what they come from, and what changes that in place before."""
    due: dict[fx.Node, list[fx.Node]] = {}
    for moment in moments:
        due.setdefault(moment.after, []).extend(nodes_in(moment.value))
    kept_between_calls: frozenset[Root] = frozenset()
    while True:
        live, read = _sweep(graph, due, memory, kept_between_calls)
        state = frozenset(root for root in read if isinstance(root, str))
        if state <= kept_between_calls:
            return live
        kept_between_calls |= state


def _sweep(
    graph: fx.Graph, due: Mapping[fx.Node, list[fx.Node]], memory: Memory, state: frozenset[Root]
) -> tuple[set[fx.Node], set[Root]]:
    """One pass from the end: what is needed, and all memory that is read."""
    live: set[fx.Node] = set()
    wanted: set[fx.Node] = set()
    read: set[Root] = set(state)
    for node in reversed(graph.nodes):
        for value in due.get(node, ()):
            wanted.add(value)
            read |= memory.shares[value]
        if node.op == "placeholder" or node in wanted or not memory.overwrites[node].isdisjoint(read):
            live.add(node)
            wanted.update(node.all_input_nodes)
            read |= memory.behind(node.all_input_nodes)
    return live, read


def _guards_before(last: int, order: Mapping[fx.Node, int], live: set[fx.Node]) -> set[fx.Node]:
    """The checks that the model makes on its way to the node at `last`, where they cost next to nothing."""
    kept: set[fx.Node] = set()
    for node, index in order.items():
        if node.target in _GUARDS and index < last:
            missing = _missing(node, live | kept)
            if all(_is_about_shapes(other) for other in missing - {node}):
                kept |= missing
    return kept


def _missing(node: fx.Node, present: set[fx.Node]) -> set[fx.Node]:
    found, pending = set(), [node]
    while pending:
        current = pending.pop()
        if current not in present and current not in found:
            found.add(current)
            pending.extend(current.all_input_nodes)
    return found


def _is_about_shapes(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in _SHAPE_NAMES
    name = getattr(node.target, "__name__", "")
    return node.op == "call_function" and (
        name in _SHAPE_NAMES or getattr(operator, name, None) is node.target
    )
