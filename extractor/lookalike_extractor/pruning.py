"""Cutting a graph down to what the requested values need, without losing what acts by side effect."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.fx._symbolic_trace import _assert_is_none

from lookalike_extractor.capture.trace import Moment, Trace, nodes_in
from lookalike_extractor.effects import affected, effect
from lookalike_extractor.errors import RequestInvalid
from lookalike_extractor.operations import require, require_input, snapshot

# A piece of memory: the node that made it, or the path of the attribute that holds it between calls.
Root = fx.Node | str

_GUARDS = frozenset({torch._assert, _assert_is_none, require, require_input})
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
    start: Moment | None = None,
) -> fx.Graph:
    """A new graph that returns {key: value} for `taps`, in order of execution, and runs only what they need.

    A tapped value that a later kept operation may overwrite is copied at its moment; nothing else is. With
    `start`, the value of that moment is the input, in the place of the model's own.
    """
    order = {node: index for index, node in enumerate(trace.graph.nodes)}
    memory = Memory.of(trace.graph, module_at)
    nodes = list(order) if start is None else _from(start, order)
    live = needed_nodes(nodes, list(taps.values()), memory, start)
    live |= _guards_before(max(order[node] for node in live), nodes, order, live)
    last_change = {root: order[node] for node in nodes if node in live for root in memory.overwrites[node]}
    new = fx.Graph()
    new._codegen = copy.deepcopy(trace.graph._codegen)
    copied = {} if start is None else {start.value: _input_in_place_of(start.value, new)}
    answer: dict[str, Any] = {}
    due: dict[fx.Node, list[str]] = {}
    for key, moment in taps.items():
        due.setdefault(moment.after, []).append(key)
    for node in nodes:
        if node in live and node not in copied:
            copied[node] = new.node_copy(node, copied.__getitem__)
            copied[node].meta["node_name"] = names.get(node, "")
        for key in due.get(node, ()):
            value = fx.node.map_arg(taps[key].value, copied.__getitem__)
            at_risk = memory.behind(nodes_in(taps[key].value))
            clash = any(last_change.get(root, -1) > order[node] for root in at_risk)
            answer[key] = new.call_function(snapshot, (value,)) if clash else value
    new.output(answer)
    return new


def _from(start: Moment, order: Mapping[fx.Node, int]) -> list[fx.Node]:
    """The nodes that may run after `start`, which comes first; attributes can be read at any time."""
    later = [
        n for n in order if order[n] > order[start.after] or (n.op == "get_attr" and n is not start.value)
    ]
    return [start.value, *later]


def _input_in_place_of(node: fx.Node, graph: fx.Graph) -> fx.Node:
    placeholder = graph.placeholder(node.name)
    placeholder.meta["node_name"] = node.name
    if "recorded" in node.meta:
        graph.call_function(require_input, (placeholder, *node.meta["recorded"]))
    return placeholder


def needed_nodes(
    nodes: Sequence[fx.Node], moments: Iterable[Moment], memory: Memory, start: Moment | None = None
) -> set[fx.Node]:
    """Those of `nodes` that must run for `moments`: what they come from, and what changes that before.

    Raises:
        RequestInvalid: something that is not among `nodes` is needed as well.
    """
    due: dict[fx.Node, list[fx.Node]] = {}
    for moment in moments:
        due.setdefault(moment.after, []).extend(nodes_in(moment.value))
    given = {node for node in nodes if node.op == "placeholder"} if start is None else {start.value}
    kept_between_calls: frozenset[Root] = frozenset()
    while True:
        live, wanted, read = _sweep(nodes, due, given, memory, kept_between_calls)
        if lacking := wanted - live:
            first = min(lacking, key=lambda node: node.name)
            raise RequestInvalid(
                f"What is asked for needs {first.name!r} too, which runs before the input node."
            )
        state = frozenset(root for root in read if isinstance(root, str))
        if state <= kept_between_calls:
            return live
        kept_between_calls |= state


def _sweep(
    nodes: Sequence[fx.Node],
    due: Mapping[fx.Node, list[fx.Node]],
    given: set[fx.Node],
    memory: Memory,
    state: frozenset[Root],
) -> tuple[set[fx.Node], set[fx.Node], set[Root]]:
    """One pass from the end: what runs, what is wanted, and all memory that is read."""
    live: set[fx.Node] = set(given)
    wanted: set[fx.Node] = set().union(*due.values()) if due else set()
    read: set[Root] = set(state)
    for node in reversed(nodes):
        read |= memory.behind(due.get(node, ()))
        if node not in given and (node in wanted or not memory.overwrites[node].isdisjoint(read)):
            live.add(node)
            wanted.update(node.all_input_nodes)
            read |= memory.behind(node.all_input_nodes)
    return live, wanted, read


def _guards_before(
    last: int, nodes: Sequence[fx.Node], order: Mapping[fx.Node, int], live: set[fx.Node]
) -> set[fx.Node]:
    """The checks that the model makes on its way to the node at `last`, where they cost next to nothing."""
    kept: set[fx.Node] = set()
    for node in nodes:
        if node.target in _GUARDS and order[node] < last:
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
