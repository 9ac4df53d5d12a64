"""Capture by running: the model runs once on fake tensors, and what it does is written down as a graph.

Works for models whose Python code branches on sizes or loops over them: the branch taken is recorded. The
batch size stays a symbol. What the run takes for granted about it becomes a guard in the graph; the other
sizes and the type of the input are guarded as they were. A call that breaks a guard is refused.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from lookalike_extractor.capture.expressions import nodes_for
from lookalike_extractor.capture.fakes import STAND_INS, symbolic
from lookalike_extractor.capture.interception import Interception, is_method
from lookalike_extractor.capture.trace import Trace, Traces
from lookalike_extractor.inputs import Inputs, with_batch
from lookalike_extractor.naming import Label, operation_name
from lookalike_extractor.operations import require, require_input
from lookalike_extractor.preservation import preserved

# A batch unlike any size that models are written for, so that nothing else is taken for it.
_BATCH = 37


class Unrecorded(Exception):
    """The model used a tensor whose making could not be seen."""


def record(model: nn.Module, inputs: Inputs, options: dict[str, Any]) -> Traces:
    """Both modes of `model`, each from one run on tensors like `inputs`, of which nothing is computed."""
    return Traces(*(_record(model, training, inputs, options) for training in (True, False)))


def _record(model: nn.Module, training: bool, inputs: Inputs, options: dict[str, Any]) -> Trace:
    given = next((value.shape[0] for value in inputs if isinstance(value, Tensor) and value.dim()), 1)
    recorder = _run(model, training, with_batch(inputs, _BATCH), options)
    if not recorder.holds_for(given):  # the model takes its batch for granted: let that be the one given
        recorder = _run(model, training, inputs, options)
    return recorder.trace


def _run(model: nn.Module, training: bool, batch: Inputs, options: dict[str, Any]) -> Recorder:
    sizes = ShapeEnv(specialize_zero_one=False)
    with (
        preserved(model),
        torch.no_grad(),
        FakeTensorMode(allow_non_fake_inputs=True, shape_env=sizes) as fake,
    ):
        model.train(training)
        recorder = Recorder(model, options, sizes)
        arguments = recorder.begin(batch, fake)
        with recorder.watching():
            value = model(*arguments)
        recorder.end(value)
        return recorder


class Recorder(Interception):
    """Writes down what a model does as nodes of a graph."""

    def __init__(self, root: nn.Module, options: dict[str, Any], sizes: ShapeEnv) -> None:
        super().__init__(root, options)
        self.trace = Trace(fx.Graph())
        self._graph = self.trace.graph
        self._sizes, self._guards_seen = sizes, 0
        self._guards: list[sympy.Basic] = []
        self._attributes = {id(tensor): name for name, tensor in _state(root)}
        self._nodes: dict[int, fx.Node | tuple[fx.Node, Any]] = {}
        self._alive: list[Any] = []  # tensors by whose id nodes are found
        self._symbols: dict[sympy.Symbol, tuple[fx.Node, int]] = {}
        self._size_nodes: dict[sympy.Symbol, fx.Node] = {}

    def begin(self, inputs: Inputs, fake: FakeTensorMode) -> list[Any]:
        """Placeholders and guards for `inputs`; the tensors to run on instead."""
        names = list(inspect.signature(self._root.forward).parameters)
        arguments, placeholders = [], []
        for name, value in zip(names, inputs, strict=False):
            placeholders.append(self._graph.placeholder(name))
            self.trace.labels[placeholders[-1]] = Label("", operation_name(name))
            arguments.append(symbolic(value, fake) if isinstance(value, Tensor) else value)
        for placeholder, argument in zip(placeholders, arguments, strict=True):
            if isinstance(argument, Tensor):
                self._bind(argument, placeholder)
                self._expect(placeholder, argument)
        self._device = next((a.device for a in arguments if isinstance(a, Tensor)), None)
        self._first = next(
            (p for p, a in zip(placeholders, arguments, strict=True) if isinstance(a, Tensor)), None
        )
        return arguments

    def end(self, value: Any) -> None:
        self._take_guards(only_equalities=False)
        self._graph.output(())

    def _expect(self, placeholder: fx.Node, tensor: Tensor) -> None:
        for axis, size in enumerate(tensor.shape):
            if isinstance(size, torch.SymInt):
                first = self._symbols.setdefault(size.node.expr, (placeholder, axis))
                if first[0] is not placeholder:
                    self._expect_as_many(placeholder, size.node.expr)
        self._note_shape(tensor, placeholder)
        self._graph.call_function(require_input, (placeholder, *placeholder.meta["recorded"]))

    def _expect_as_many(self, placeholder: fx.Node, symbol: sympy.Symbol) -> None:
        """Inputs that are as many share the symbol, so that a model may join and part them."""
        count = self._graph.call_method("size", (placeholder, 0))
        condition = self._graph.call_function(operator.eq, (count, self._size(symbol)))
        first = self._symbols[symbol][0].target
        self._graph.call_function(require, (condition, f"as many {placeholder.target} as {first}", ""))

    def _note_shape(self, value: Any, node: fx.Node) -> None:
        """What a value must be like to stand in for this one: name, shape with None for the batch, type."""
        if isinstance(value, Tensor):
            shape = [None if isinstance(size, torch.SymInt) else size for size in value.shape]
            node.meta["recorded"] = (str(node.target), shape, value.dtype)

    def run(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Runs it, and tells what the model's own code decides by sizes from what operators check themselves.

        Operators check their sizes again at every call; of theirs, only sizes that they fix matter.
        """
        self._take_guards(only_equalities=False)
        value = STAND_INS.get(function, function)(*args, **kwargs)
        self._take_guards(only_equalities=True)
        return value

    def _take_guards(self, only_equalities: bool) -> None:
        new = self._sizes.guards[self._guards_seen :]
        self._guards_seen = len(self._sizes.guards)
        for guard in new:
            if isinstance(guard.expr, sympy.Eq) or not only_equalities:
                self._guards.append(guard.expr)
                condition = nodes_for(guard.expr, self._graph, self._size)
                self._graph.call_function(require, (condition, str(guard.expr), self.scope))

    def holds_for(self, batch: int) -> bool:
        """Whether all guards let a batch of this size pass."""
        sizes = dict.fromkeys(self._symbols, sympy.Integer(batch))
        return all(guard.subs(sizes) != sympy.false for guard in self._guards)

    def _size(self, symbol: sympy.Symbol) -> fx.Node:
        if symbol not in self._size_nodes:
            placeholder, axis = self._symbols[symbol]
            self._size_nodes[symbol] = self._graph.call_method("size", (placeholder, axis))
        return self._size_nodes[symbol]

    def called(self, label: Label, function: Callable[..., Any], args: Any, kwargs: Any, value: Any) -> None:
        arguments, options = self._argument(tuple(args)), self._argument(kwargs)
        name = getattr(function, "__name__", "")
        if name == "__get__":
            attribute = function.__self__.__name__  # type: ignore[attr-defined]
            node = self._graph.call_function(getattr, (*arguments, attribute))
        elif name == "__getitem__":
            node = self._graph.call_function(operator.getitem, arguments)
        elif is_method(function):
            node = self._graph.call_method(name, arguments, options)
        else:
            node = self._graph.call_function(function, arguments, options)
        self.trace.labels[node] = label
        self._note_shape(value, node)
        self._bind(value, node)

    def ran(self, path: str, args: Any, kwargs: Any, value: Any) -> None:
        node = self._graph.call_module(path, self._argument(tuple(args)), self._argument(kwargs))
        self.trace.labels[node] = Label(path)
        self._note_shape(value, node)
        self._bind(value, node)
        self.trace.leave(path, node, node)

    def left(self, path: str, value: Any) -> None:
        try:
            nodes = self._argument(value)
        except Unrecorded:
            return  # what it returns cannot be asked for; what is inside can
        self.trace.leave(path, nodes, next(iter(reversed(self._graph.nodes))))

    def _bind(self, value: Any, node: fx.Node | tuple[fx.Node, Any]) -> None:
        """Remembers that `value`, or each tensor in it, is the value of `node`, or a part of that."""
        if isinstance(value, Tensor):
            self._nodes[id(value)] = node
            self._alive.append(value)
        elif isinstance(value, tuple | list | dict):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, part in items:
                self._bind(part, (node, key))  # type: ignore[arg-type]

    def _argument(self, value: Any) -> Any:
        """`value` with nodes in the place of tensors and of sizes that depend on the batch."""
        if isinstance(value, Tensor):
            return self._node(value)
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            return nodes_for(value.node.expr, self._graph, self._size)
        if isinstance(value, dict):
            return {key: self._argument(part) for key, part in value.items()}
        if isinstance(value, slice):
            return slice(*(self._argument(part) for part in (value.start, value.stop, value.step)))
        if isinstance(value, tuple | list):
            parts = [self._argument(part) for part in value]
            return parts if isinstance(value, list) else tuple(parts)
        if isinstance(value, torch.device) and value == self._device and self._first is not None:
            return self._graph.call_function(getattr, (self._first, "device"))
        return value

    def _node(self, tensor: Tensor) -> fx.Node:
        known = self._nodes.get(id(tensor))
        if isinstance(known, fx.Node):
            return known
        node = self._attribute(tensor) if known is None else self._part(known)
        self._nodes[id(tensor)] = node
        self._alive.append(tensor)
        return node

    def _part(self, part: tuple[Any, Any]) -> fx.Node:
        source, key = part
        whole = source if isinstance(source, fx.Node) else self._part(source)
        node = self._graph.call_function(operator.getitem, (whole, key))
        self.trace.labels[node] = Label(self.scope, "getitem")
        return node

    def _attribute(self, tensor: Tensor) -> fx.Node:
        name = self._attributes.get(id(tensor))
        if name is not None:
            node = self._graph.get_attr(name)
            if isinstance(tensor, nn.Parameter):
                self.trace.labels[node] = Label(self.scope, operation_name(name))
            return node
        if isinstance(tensor, FakeTensor):
            raise Unrecorded(f"a tensor of shape {list(tensor.shape)} was made where it cannot be seen")
        name = f"_tensor_constant{len(self.trace.constants)}"
        self.trace.constants[name] = tensor
        return self._graph.create_node("get_attr", name)


def _state(root: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from root.named_parameters()
    yield from root.named_buffers()
