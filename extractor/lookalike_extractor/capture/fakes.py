"""Fake tensors whose batch size is a symbol, and functions that keep it one.

PyTorch's own rules for these functions on fake tensors would fix the batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch._refs import constant_pad_nd
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext


def symbolic(tensor: Tensor, fake: FakeTensorMode) -> Tensor:
    """A fake of `tensor` whose first axis is a symbol, the same for all that are as long."""
    if not tensor.dim():
        return fake.from_tensor(tensor)
    axes = [DimDynamic.DUCK] + [DimDynamic.STATIC] * (tensor.dim() - 1)
    context: Any = StatelessSymbolicContext(dynamic_sizes=axes)
    return fake.from_tensor(tensor, symbolic_context=context)


def padded(
    input: Tensor,  # noqa: A002 - it may be given by name
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Tensor:
    """`F.pad`."""
    if mode != "constant":
        return F.pad(input, list(pad), mode, value)
    return constant_pad_nd(input, list(pad), value or 0) if any(pad) else input.clone()


def like_the_first(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function`, which treats all images alike: what it makes of the first tells what it makes of all."""

    def run(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: A002
        one = function(input[:1], *args, **kwargs)
        return one.new_empty((input.shape[0], *one.shape[1:]))

    return run


STAND_INS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.pad: padded,
    F.interpolate: like_the_first(F.interpolate),
    F.unfold: like_the_first(F.unfold),
}
