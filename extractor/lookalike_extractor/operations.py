"""Functions that captured graphs call where Python itself would act: augmented assignments and copies."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from lookalike_extractor.errors import RequestInvalid


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


def require_input(tensor: torch.Tensor, name: str, shape: list[int | None], dtype: torch.dtype) -> None:
    """Refuses an input unlike the one that a graph was recorded with; None stands for any size."""
    fits = tensor.dim() == len(shape) and all(
        want in (None, size) for want, size in zip(shape, tensor.shape, strict=True)
    )
    if not fits or tensor.dtype != dtype:
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        raise RequestInvalid(
            f"Input {name!r} is {tensor.dtype} of shape {list(tensor.shape)}, but the extractor was made "
            f"for {dtype} of shape [{wanted}]. Make another with example_inputs of that shape."
        )


def require(condition: bool, what: str, where: str) -> None:
    """Refuses a batch for which the model would have run otherwise than it was recorded."""
    if not condition:
        raise RequestInvalid(
            f"This batch size was not recorded: module {where!r} takes {what} for granted. "
            "Make another extractor with example_inputs of the batch size you need."
        )
