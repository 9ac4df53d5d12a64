"""Holding an extractor against the model it came from: on the same input, every tap must agree."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from lookalike_extractor.capture.observer import Observer, Place
from lookalike_extractor.errors import RequestInvalid, VerificationFailed
from lookalike_extractor.inputs import Inputs, example_for, with_batch
from lookalike_extractor.preservation import preserved

# Largest difference, in units of the largest value of the tap, that is rounding: the same kernels run on the
# same input, so that on most devices there is none at all.
_TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float32: 1e-4, torch.float64: 1e-9}


class NotVerifiedWarning(UserWarning):
    """An extractor was built that could not be held against its model."""


@dataclass(frozen=True)
class Verification:
    """How an extractor compared with its model in eval mode.

    Attributes:
        batch_sizes: batches on which both ran.
        differences: {key: largest absolute difference}, 0.0 where all bits are equal; None where the value
            cannot be seen from outside the model.
        refused: batch sizes that the extractor refused, and its reason.
        skipped: why nothing was compared; "" if it was.
    """

    batch_sizes: tuple[int, ...] = ()
    differences: Mapping[str, float | None] = field(default_factory=dict)
    refused: Mapping[int, str] = field(default_factory=dict)
    skipped: str = ""

    def __str__(self) -> str:
        if self.skipped:
            return f"not verified: {self.skipped}"
        figures = (f"  {key}: {'not seen' if gap is None else gap}" for key, gap in self.differences.items())
        return "\n".join([f"verified at batch sizes {', '.join(map(str, self.batch_sizes))}:", *figures])


def verify(
    model: nn.Module,
    extractor: nn.Module,
    taps: Mapping[str, Place | None],
    options: dict[str, Any],
    example_inputs: Any = None,
    start: Place | None = None,
) -> Verification:
    """Runs `model` and `extractor` in eval mode at two batch sizes and compares every tap.

    Args:
        taps: where in a run of the model the value of each key is seen.
        example_inputs: as of `create_feature_extractor`.
        start: where the extractor's own input is seen, when it is not the model's.

    Raises:
        VerificationFailed: a tap differs; the message has its key, the batch size and the difference.
        RequestInvalid: the model does not run on the inputs given.
    """
    if any(tensor.device.type == "meta" for tensor in (*model.parameters(), *model.buffers())):
        return Verification(skipped="the model has no values (meta device)")
    inputs = example_for(model, example_inputs)
    given = next((value.shape[0] for value in inputs if isinstance(value, Tensor) and value.dim()), 1)
    differences: dict[str, float | None] = dict.fromkeys(taps)
    refused: dict[int, str] = {}
    sizes = (given, given + 2)
    for size in sizes:
        batch = with_batch(inputs, size)
        try:
            seen = _observe(model, options, {*taps.values(), start} - {None}, batch)
        except Exception as error:
            return _cannot_run(model, batch, error, asked=example_inputs is not None)
        try:
            out = _run(extractor, batch if start is None else (seen[start],))
        except RequestInvalid as error:
            refused[size] = error.message
            continue
        for key, place in taps.items():
            if place in seen:
                gap = _checked(key, size, seen[place], out[key])
                differences[key] = max(gap, differences[key] or 0.0)
    if len(refused) == len(sizes):
        raise VerificationFailed(f"The extractor refuses the input it was made with: {refused[given]}")
    return Verification(tuple(size for size in sizes if size not in refused), differences, refused)


def _observe(model: nn.Module, options: dict[str, Any], wanted: Any, inputs: Inputs) -> dict[Place, Any]:
    with preserved(model), torch.no_grad(), torch.random.fork_rng():
        model.eval()
        torch.manual_seed(0)
        observer = Observer(model, options, wanted)
        observer.note_inputs(inputs)
        with observer.watching():
            model(*inputs)
        return observer.seen


def _run(extractor: nn.Module, inputs: Inputs) -> dict[str, Any]:
    try:
        with preserved(extractor), torch.no_grad(), torch.random.fork_rng():
            extractor.eval()
            torch.manual_seed(0)
            return dict(extractor(*inputs))
    finally:
        if isinstance(extractor, fx.GraphModule):
            extractor.recompile()  # the code of the graph that it had before


def _cannot_run(model: nn.Module, inputs: Inputs, error: Exception, asked: bool) -> Verification:
    shapes = [list(value.shape) for value in inputs if isinstance(value, Tensor)]
    reason = f"{type(model).__name__} does not run on {shapes}: {error}"
    if asked:
        raise RequestInvalid(reason) from error
    warnings.warn(f"Not verified: {reason}. Give example_inputs that fit.", NotVerifiedWarning, stacklevel=4)
    return Verification(skipped=reason)


def _checked(key: str, size: int, expected: Any, value: Any) -> float:
    pairs = list(zip(_tensors(expected), _tensors(value), strict=False))
    if not pairs or len(_tensors(expected)) != len(_tensors(value)):
        raise VerificationFailed(
            f"Tap {key!r} has other parts than in the model, at batch size {size}.", tap=key
        )
    return max(_gap(key, size, *pair) for pair in pairs)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _gap(key: str, size: int, expected: Tensor, value: Tensor) -> float:
    if expected.shape != value.shape or expected.dtype != value.dtype:
        shapes = f"{list(value.shape)} {value.dtype} instead of {list(expected.shape)} {expected.dtype}"
        raise VerificationFailed(f"Tap {key!r} is {shapes} at batch size {size}.", tap=key)
    if torch.equal(expected, value) or not expected.numel():
        return 0.0
    apart = (expected.double() - value.double()).abs()
    both_undefined = expected.isnan() & value.isnan() | (expected == value)
    gap = float(apart.masked_fill(both_undefined, 0).nan_to_num(torch.inf).max())
    allowed = _TOLERANCE.get(expected.dtype, 0.0) * float(expected.double().nan_to_num().abs().max())
    if gap > allowed:
        raise VerificationFailed(
            f"Tap {key!r} differs from the model by {gap:.3g} at batch size {size}, more than {allowed:.3g}.",
            tap=key,
        )
    return gap
