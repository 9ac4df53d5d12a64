"""Making an extractor fast for one device, each step held against the module it began with.

    fold batch norm -> channels_last -> bf16 -> compile

A step that moves an output further than its precision allows is taken back, and the report says so. What
leaves torch (ONNX, AOTInductor, OpenVINO) is in exporting.py.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .errors import RequestInvalid
from .folding import fold_batch_norm

Precision = Literal["fp32", "bf16"]
LEAST_COSINE: Mapping[str, float] = {"fp32": 0.99999, "bf16": 0.999, "int8": 0.99}
"""Per image, of each output taken as one long vector."""


@dataclass(frozen=True)
class Step:
    """One change.

    Attributes:
        name: as "fold batch norm".
        kept: False when it was taken back or not tried.
        cosines: least cosine of any image with the original, by output key.
        seconds: that the step took, its check included.
        reason: why it was not kept.
    """

    name: str
    kept: bool
    cosines: Mapping[str, float]
    seconds: float
    reason: str = ""

    def __str__(self) -> str:
        figures = ", ".join(f"{key} {cosine:.6f}" for key, cosine in self.cosines.items())
        return f"{self.name}: {'kept' if self.kept else 'not kept, ' + self.reason} ({figures or 'not run'})"


@dataclass(frozen=True)
class Optimized:
    """A faster module with the same outputs, and what was done to get it."""

    module: nn.Module
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.steps))


class Bf16(nn.Module):
    """Runs a module in bfloat16; takes and yields float32."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        outputs = self.module(x.bfloat16())
        return {key: value.float() for key, value in outputs.items()}


def optimize(
    extractor: nn.Module,
    example: Tensor,
    *,
    for_device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    compiled: bool = False,
) -> Optimized:
    """Makes an extractor in eval mode fast on a device. The extractor itself is not changed.

    Args:
        extractor: yields {key: tensor} for float32 [n, 3, h, w].
        example: real images of the size to come, float32 [n, 3, h, w], n >= 2; noise would hide errors.
        for_device: where it will run.
        precision: "bf16" is used where the device multiplies it in hardware; elsewhere it is slower than
            fp32, and the step is left out.
        compiled: also torch.compile, which takes up to a minute at the first run of each input size.

    Raises:
        RequestInvalid: the extractor is in train mode, or precision is neither "fp32" nor "bf16".
    """
    if extractor.training:
        raise RequestInvalid("the extractor is in train mode; call eval() first")
    if precision not in ("fp32", "bf16"):
        raise RequestInvalid(f"precision is {precision!r}; it must be 'fp32' or 'bf16' (int8: see exporting)")
    device = torch.device(for_device)
    example = example.to(device)
    progress = _Progress(_copy_on(extractor, device), example)
    progress.try_step("fold batch norm", fold_batch_norm, "fp32")
    progress.try_step("channels_last", _channels_last, "fp32")
    if precision == "bf16":
        missing = "" if has_bf16(device) else f"{device} does not multiply bfloat16 in hardware"
        progress.try_step("bf16", _to_bf16, "bf16", missing)
    if compiled:
        progress.try_step("compile", _compile, precision)
    return Optimized(progress.module, tuple(progress.steps))


def has_bf16(device: torch.device) -> bool:
    """True when matrix products in bfloat16 run in hardware there."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def least_cosines(reference: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> dict[str, float]:
    """The least cosine of any image, by key, each output [n, ...] taken as n long vectors. 0 for NaN."""
    if reference.keys() != outputs.keys():
        raise RequestInvalid(f"the outputs are {list(outputs)} instead of {list(reference)}")
    return {key: _least_cosine(value, outputs[key]) for key, value in reference.items()}


def _least_cosine(one: Tensor, other: Tensor) -> float:
    a, b = (value.detach().cpu().double().flatten(1) for value in (one, other))
    cosines = nn.functional.cosine_similarity(a, b, dim=1)
    same = (a == b).all(dim=1)  # also where both are zero
    return float(torch.where(same, 1.0, cosines).nan_to_num(0.0).min())


class _Progress:
    """The module so far, and the answers it must keep giving."""

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        self.module = module
        self.steps: list[Step] = []
        self._example = example
        self._reference = self._run(module)

    def try_step(
        self, name: str, change: Callable[[nn.Module], nn.Module], precision: str, obstacle: str = ""
    ) -> None:
        if obstacle:
            self.steps.append(Step(name, False, {}, 0.0, obstacle))
            return
        started = time.perf_counter()
        changed = change(self.module)
        cosines = least_cosines(self._reference, self._run(changed))
        kept = min(cosines.values()) >= LEAST_COSINE[precision]
        reason = "" if kept else f"a cosine is under {LEAST_COSINE[precision]}"
        self.steps.append(Step(name, kept, cosines, time.perf_counter() - started, reason))
        if kept:
            self.module = changed

    def _run(self, module: nn.Module) -> dict[str, Tensor]:
        with torch.inference_mode():
            return {key: value.clone() for key, value in module(self._example).items()}


def _copy_on(extractor: nn.Module, device: torch.device) -> nn.Module:
    return copy.deepcopy(extractor).to(device)


def _channels_last(module: nn.Module) -> nn.Module:
    return module.to(memory_format=torch.channels_last)


def _to_bf16(module: nn.Module) -> nn.Module:
    return Bf16(copy.deepcopy(module).bfloat16())


def _compile(module: nn.Module) -> nn.Module:
    module = copy.copy(module)  # compile() marks the module itself
    module.compile(fullgraph=True, dynamic=False)
    return module
