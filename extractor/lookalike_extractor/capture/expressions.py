"""Sizes that depend on the batch, as nodes of a graph that compute them anew at every call."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import sympy  # type: ignore[import-untyped]
from torch import fx
from torch.utils._sympy import functions as sizes

# Kinds of expression, and the function that computes one from the values of its arguments.
_FUNCTIONS: dict[type[sympy.Basic], Callable[..., Any]] = {
    sympy.Add: operator.add,
    sympy.Mul: operator.mul,
    sympy.Pow: operator.pow,
    sympy.Max: max,
    sympy.Min: min,
    sympy.Eq: operator.eq,
    sympy.Ne: operator.ne,
    sympy.Lt: operator.lt,
    sympy.Le: operator.le,
    sympy.Gt: operator.gt,
    sympy.Ge: operator.ge,
    sympy.And: operator.and_,
    sympy.Or: operator.or_,
    sympy.Not: operator.not_,
    sizes.FloorDiv: operator.floordiv,
    sizes.CleanDiv: operator.floordiv,
    sizes.PythonMod: operator.mod,
    sizes.Mod: operator.mod,
    sizes.Max: max,
    sizes.Min: min,
    sizes.IntTrueDiv: operator.truediv,
    sizes.PowByNatural: operator.pow,
    sizes.ToFloat: float,
}
_CHAINED = (operator.add, operator.mul, operator.and_, operator.or_)


def nodes_for(expression: Any, graph: fx.Graph, size_of: Callable[[sympy.Symbol], fx.Node]) -> Any:
    """A node that computes `expression`, or the number it is. `size_of` gives the node of a size.

    Raises:
        NotImplementedError: the expression has a function that is not known here.
    """
    if isinstance(expression, sympy.Symbol):
        return size_of(expression)
    if isinstance(expression, sympy.Integer | int):
        return int(expression)
    if isinstance(expression, sympy.Float):
        return float(expression)
    if expression in (sympy.true, sympy.false):
        return bool(expression)
    function = _FUNCTIONS.get(type(expression))
    if function is None:
        raise NotImplementedError(f"a size computed as {expression}, with {type(expression).__name__}")
    arguments = [nodes_for(argument, graph, size_of) for argument in expression.args]
    if function in _CHAINED:
        return functools.reduce(lambda left, right: graph.call_function(function, (left, right)), arguments)
    return graph.call_function(function, tuple(arguments))
