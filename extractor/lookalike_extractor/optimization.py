"""Making an extractor fast for one device, each step held against the module it began with.

    fold batch norm -> channels_last -> bf16 -> the runtime -> int8

A step that moves an output further than its precision allows is taken back, and the report says so. The same
runtimes as files are in exporting.py.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from .agreement import LEAST_COSINE, Precision, TapError
from .conversion import openvino_model
from .errors import RequestInvalid
from .exporting import calibration_for, onnx_bytes, quantized, write_aot
from .folding import fold_batch_norm
from .runtimes import AotPackage, Compiled, OnnxRuntime, OpenVino, needed, require_compiler
from .stepwise import Change, Progress, Step

Runtime = Literal["eager", "compile", "aot", "onnx", "openvino"]

_PRECISIONS: Mapping[Runtime, tuple[Precision, ...]] = {
    "eager": ("fp32", "bf16"),
    "compile": ("fp32", "bf16"),
    "aot": ("fp32", "bf16"),
    "onnx": ("fp32",),
    "openvino": ("fp32", "bf16", "int8"),
}
_PACKAGES: Mapping[Runtime, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
}


@dataclass(frozen=True)
class Optimized:
    """A faster module with the same outputs, and what was done to get it.

    Attributes:
        module: float32 [n, 3, h, w] on `device` -> {key: float32 tensor}, for inference, any n.
        runtime: what runs it.
        precision: what it really computes in: one that was too far off, or that the device lacks, was
            taken back.
        steps: all that was tried, in order.
    """

    module: nn.Module
    runtime: Runtime
    precision: Precision
    steps: tuple[Step, ...]

    @property
    def errors(self) -> Mapping[str, TapError]:
        """How far each output of the module is from the original, by key."""
        return next((step.errors for step in reversed(self.steps) if step.kept), {})

    @property
    def cosines(self) -> dict[str, float]:
        """The least cosine of any image with the original, by key."""
        return {key: error.cosine for key, error in self.errors.items()}

    def __str__(self) -> str:
        return "\n".join([f"{self.runtime}, {self.precision}", *map(str, self.steps)])


def optimize(
    extractor: nn.Module,
    example: Tensor,
    *,
    for_device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    runtime: Runtime = "eager",
    calibration: Tensor | None = None,
    threads: int | None = None,
    least_cosine: float | None = None,
) -> Optimized:
    """Makes an extractor in eval mode fast on a device. The extractor itself is not changed.

    Args:
        extractor: yields {key: tensor} for float32 [n, 3, h, w].
        example: real images of the size to come, float32 [n, 3, h, w], n >= 2; noise would hide errors.
        for_device: where it will run. ONNX and OpenVINO run on the CPU.
        precision: "bf16" is used where the device multiplies it in hardware; elsewhere it is slower than
            fp32, and the step is left out. "int8" is for OpenVINO.
        runtime: "eager" is torch as it is; "compile" is torch.compile, a minute at the first run of an image
            size; "aot" is AOTInductor, for this image size only; "onnx" is ONNX Runtime.
        calibration: for int8, some dozens of real images, float32 [n, 3, h, w], others than the example.
        threads: of ONNX Runtime and OpenVINO, which keep their own; None takes as many as torch.
        least_cosine: that the precision asked for must keep; None is LEAST_COSINE.

    Raises:
        RequestInvalid: the extractor is in train mode, the arguments do not go together, or a package or
            compiler is missing; the message says which line installs it.
        CaptureFailed: the runtime does not take the module.
        VerificationFailed: the runtime gives other values even in fp32.
    """
    device = torch.device(for_device)
    _check(extractor, example, device, precision, runtime)
    images = calibration_for(precision, calibration)
    limits = dict(LEAST_COSINE)
    if least_cosine is not None:
        limits[precision] = least_cosine
    example = example.to(device)
    progress = Progress(copy.deepcopy(extractor).to(device), example, limits)
    progress.take(Change("fold batch norm", fold_batch_norm))
    if runtime == "openvino":
        changes = _for_openvino(_Conversion(example, threads), precision, images)
    elif runtime == "onnx":
        changes = [Change("onnx", lambda module: _to_onnx(module, example, threads), required=True)]
    else:
        changes = _for_torch(example, precision, runtime)
    for change in changes:
        progress.take(change)
    return Optimized(progress.module, runtime, progress.precision, tuple(progress.steps))


def available_runtimes(for_device: str | torch.device = "cpu") -> dict[Runtime, str]:
    """Which runtimes can be used here: "" for those that can, else what is missing or against it."""
    return {runtime: _obstacle(runtime, torch.device(for_device)) for runtime in _PRECISIONS}


def has_bf16(device: torch.device) -> bool:
    """True when matrix products in bfloat16 run in hardware there."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


class Bf16(nn.Module):
    """Runs a module in bfloat16; takes and yields float32."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        outputs = self.module(x.bfloat16())
        return {key: value.float() for key, value in outputs.items()}


def _for_torch(example: Tensor, precision: Precision, runtime: Runtime) -> list[Change]:
    changes = [Change("channels_last", lambda module: module.to(memory_format=torch.channels_last))]
    if precision == "bf16":
        changes.append(Change("bf16", _to_bf16, "bf16", _without_bf16(example.device)))
    if runtime == "compile":
        changes.append(Change("compile", Compiled, required=True))
    if runtime == "aot":
        changes.append(Change("aot", lambda module: _to_aot(module, example), required=True))
    return changes


def _for_openvino(conversion: _Conversion, precision: Precision, images: Tensor | None) -> list[Change]:
    changes = [Change("openvino", conversion.fp32, required=True)]
    if precision == "bf16":
        changes.append(Change("bf16", conversion.bf16, "bf16", _without_bf16(torch.device("cpu"))))
    if images is not None:
        changes.append(Change("int8", lambda _: conversion.int8(images), "int8"))
    return changes


class _Conversion:
    """From torch to OpenVINO once, for all precisions."""

    def __init__(self, example: Tensor, threads: int | None) -> None:
        self._example, self._threads = example, threads

    def fp32(self, module: nn.Module) -> nn.Module:
        self._model = openvino_model(module, self._example)
        return OpenVino.load(self._model, "fp32", self._threads)

    def bf16(self, _: nn.Module) -> nn.Module:
        return OpenVino.load(self._model, "bf16", self._threads)

    def int8(self, images: Tensor) -> nn.Module:
        return OpenVino.load(quantized(self._model, images), "int8", self._threads)


def _to_onnx(module: nn.Module, example: Tensor, threads: int | None) -> nn.Module:
    return OnnxRuntime.load(onnx_bytes(module, example), threads)


def _to_aot(module: nn.Module, example: Tensor) -> nn.Module:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "extractor.pt2")
        write_aot(module, example, path)
        return AotPackage(path)


def _to_bf16(module: nn.Module) -> nn.Module:
    return Bf16(copy.deepcopy(module).bfloat16())


def _without_bf16(device: torch.device) -> str:
    return "" if has_bf16(device) else f"{device} does not multiply bfloat16 in hardware"


def _check(
    extractor: nn.Module, example: Tensor, device: torch.device, precision: Precision, runtime: Runtime
) -> None:
    if extractor.training:
        raise RequestInvalid("the extractor is in train mode; call eval() first")
    if len(example) < 2:
        raise RequestInvalid("the example needs two images or more")
    if runtime not in _PRECISIONS:
        raise RequestInvalid(f"runtime is {runtime!r}; it must be one of {', '.join(_PRECISIONS)}")
    if precision not in LEAST_COSINE:
        raise RequestInvalid(f"precision is {precision!r}; it must be one of {', '.join(LEAST_COSINE)}")
    if precision not in _PRECISIONS[runtime]:
        able = [name for name, precisions in _PRECISIONS.items() if precision in precisions]
        raise RequestInvalid(f"{runtime} does not run {precision}; use {' or '.join(able)}")
    obstacle = _obstacle(runtime, device)
    if obstacle:
        raise RequestInvalid(f"{runtime} cannot be used: {obstacle}")


def _obstacle(runtime: Runtime, device: torch.device) -> str:
    if runtime in _PACKAGES and device.type != "cpu":
        return f"it runs on the CPU, not on {device}"
    try:
        for package in _PACKAGES.get(runtime, ()):
            needed(package)
        if runtime in ("compile", "aot"):
            require_compiler(device)
    except RequestInvalid as error:
        return error.message
    return ""
