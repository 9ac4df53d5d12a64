"""Functions that captured graphs call where Python itself would act: augmented assignments and copies."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map_only


def inplace_add(left: Any, right: Any) -> Any:
    left += right
    return left


def inplace_sub(left: Any, right: Any) -> Any:
    left -= right
    return left


def inplace_mul(left: Any, right: Any) -> Any:
    left *= right
    return left


def inplace_matmul(left: Any, right: Any) -> Any:
    left @= right
    return left


def inplace_truediv(left: Any, right: Any) -> Any:
    left /= right
    return left


def inplace_floordiv(left: Any, right: Any) -> Any:
    left //= right
    return left


def inplace_mod(left: Any, right: Any) -> Any:
    left %= right
    return left


def inplace_pow(left: Any, right: Any) -> Any:
    left **= right
    return left


def inplace_and(left: Any, right: Any) -> Any:
    left &= right
    return left


def inplace_or(left: Any, right: Any) -> Any:
    left |= right
    return left


def inplace_xor(left: Any, right: Any) -> Any:
    left ^= right
    return left


# Special method -> (function that a graph calls, name of the node). fx's own `operator.iadd` would not do:
# the code generated for it changes integers under the name of the old value. The names are those of the plain
# operators, as a trace that cannot see `+=` gives them.
AUGMENTED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "__iadd__": (inplace_add, "add"),
    "__isub__": (inplace_sub, "sub"),
    "__imul__": (inplace_mul, "mul"),
    "__imatmul__": (inplace_matmul, "matmul"),
    "__itruediv__": (inplace_truediv, "truediv"),
    "__ifloordiv__": (inplace_floordiv, "floordiv"),
    "__imod__": (inplace_mod, "mod"),
    "__ipow__": (inplace_pow, "pow"),
    "__iand__": (inplace_and, "and_"),
    "__ior__": (inplace_or, "or_"),
    "__ixor__": (inplace_xor, "xor"),
}

AUGMENTED_NAMES: dict[object, str] = dict(AUGMENTED.values())

# Functions that change their first argument.
MUTATING: frozenset[Callable[..., Any]] = frozenset({function for function, _ in AUGMENTED.values()}) | {
    operator.setitem
}


def snapshot(value: Any) -> Any:
    """Copies of the tensors in `value`, which later in-place operations cannot reach."""
    return tree_map_only(torch.Tensor, torch.clone, value)
