"""How far a faster module's answers are from those of the module it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .errors import RequestInvalid

Precision = Literal["fp32", "bf16", "int8"]
Outputs = Mapping[str, Tensor]

LEAST_COSINE: Mapping[str, float] = {"fp32": 0.99999, "bf16": 0.999, "int8": 0.99}
"""What a precision must keep, per image, of each output taken as one long vector."""


@dataclass(frozen=True)
class TapError:
    """How one output differs.

    Attributes:
        cosine: the least of any image, each output taken as one long vector; 0 where a value is not finite.
        largest: the largest difference, in units of the output's largest value.
    """

    cosine: float
    largest: float

    def __str__(self) -> str:
        return f"cosine {self.cosine:.6f}, largest difference {self.largest:.1e}"


def tap_errors(reference: Outputs, outputs: Outputs) -> dict[str, TapError]:
    """Compares outputs [n, ...] by key.

    Raises:
        RequestInvalid: the outputs have other keys, in another order, or other shapes.
    """
    if list(reference) != list(outputs):
        raise RequestInvalid(f"the outputs are {list(outputs)} instead of {list(reference)}")
    return {key: _tap_error(key, value, outputs[key]) for key, value in reference.items()}


def least_cosines(reference: Outputs, outputs: Outputs) -> dict[str, float]:
    """The cosines of `tap_errors`."""
    return {key: error.cosine for key, error in tap_errors(reference, outputs).items()}


Expected = Sequence[tuple[Tensor, Outputs]]


def expected(module: nn.Module, example: Tensor) -> Expected:
    """What a module yields for [n, ...] and for one image more, so that a batch that was fixed shows."""
    batches = example, torch.cat([example, example[:1]])
    with torch.inference_mode():
        return [(images, module(images)) for images in batches]


def worst_errors(expected: Expected, module: nn.Module) -> dict[str, TapError]:
    """How far another module's outputs are from those expected, by key; the worst of all batches."""
    worst: dict[str, TapError] = {}
    with torch.inference_mode():
        for images, reference in expected:
            for key, error in tap_errors(reference, module(images)).items():
                before = worst.get(key, error)
                worst[key] = TapError(min(error.cosine, before.cosine), max(error.largest, before.largest))
    return worst


def shortfall(errors: Mapping[str, TapError], least_cosine: float) -> str:
    """Which output is under the least cosine, in words; "" when none is."""
    key = min(errors, key=lambda key: errors[key].cosine)
    cosine = errors[key].cosine
    return "" if cosine >= least_cosine else f"{key!r} is at cosine {cosine:.5f}, under {least_cosine}"


def _tap_error(key: str, reference: Tensor, output: Tensor) -> TapError:
    if reference.shape != output.shape:
        raise RequestInvalid(f"{key!r} has shape {list(output.shape)} instead of {list(reference.shape)}")
    a, b = (value.detach().cpu().double().flatten(1) for value in (reference, output))
    cosines = nn.functional.cosine_similarity(a, b, dim=1)
    same = (a == b).all(dim=1)  # also where both are zero
    gap = ((a - b).abs().max() / a.abs().max().clamp(min=1e-12)).nan_to_num(torch.inf)
    return TapError(float(torch.where(same, 1.0, cosines).nan_to_num(0.0).min()), float(gap))
