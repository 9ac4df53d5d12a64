"""Extractors that leave torch: ONNX, AOTInductor and OpenVINO, each held against the module it came from.

All take a module in eval mode that yields {key: tensor} for float32 [n, 3, h, w], and keep its keys, in
order, as the names of their outputs. The batch is free, the image size is that of the example.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .errors import CaptureFailed, RequestInvalid, VerificationFailed
from .optimization import LEAST_COSINE, least_cosines

Outputs = dict[str, Tensor]


def export_graph(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """One graph of the whole module with a free batch.

    Raises:
        RequestInvalid: the module is in train mode, or the example has fewer than two images.
        CaptureFailed: torch.export does not take it.
    """
    if module.training:
        raise RequestInvalid("the module is in train mode; call eval() first")
    if len(example) < 2:
        raise RequestInvalid("the example needs two images, or the export would fix the batch to one")
    try:
        with torch.no_grad():
            return torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    except Exception as error:
        raise CaptureFailed(f"torch.export refuses the module: {str(error).splitlines()[0]}") from error


def export_onnx(module: nn.Module, example: Tensor, path: Path) -> dict[str, float]:
    """Writes an ONNX file with the input "image", checks it, and returns the least cosine by key.

    Raises:
        CaptureFailed, RequestInvalid: see export_graph; also when onnxruntime is not installed.
        VerificationFailed: ONNX Runtime gives other values.
    """
    runtime = _needed("onnxruntime", "onnx onnxscript onnxruntime")
    reference = _reference(module, example)
    torch.onnx.export(
        export_graph(module, example),
        f=str(path),
        input_names=["image"],
        output_names=list(reference),
        external_data=False,
        verbose=False,
    )
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Outputs:
        values = session.run(list(reference), {"image": images.numpy()})
        return dict(zip(reference, map(torch.from_numpy, values), strict=True))

    return _verified(module, run, example, "fp32", "ONNX Runtime")


def export_aot(module: nn.Module, example: Tensor, path: Path) -> dict[str, float]:
    """Compiles ahead of time into a package (.pt2), checks it, and returns the least cosine by key.

    It needs a C++ compiler. Raises as export_onnx does.
    """
    torch._inductor.aoti_compile_and_package(export_graph(module, example), package_path=str(path))
    return _verified(module, torch._inductor.aoti_load_package(str(path)), example, "fp32", "AOTInductor")


class OpenVino(nn.Module):
    """A module that OpenVINO runs on the CPU: float32 [n, 3, h, w] -> {key: float32 tensor}."""

    def __init__(self, compiled: Any, keys: tuple[str, ...]) -> None:
        super().__init__()
        self._compiled = compiled
        self.keys = keys

    def forward(self, images: Tensor) -> Outputs:
        values = self._compiled([images.contiguous().numpy()])
        return {key: torch.from_numpy(values[i].copy()) for i, key in enumerate(self.keys)}


def to_openvino(
    module: nn.Module,
    example: Tensor,
    *,
    precision: Literal["fp32", "bf16", "int8"] = "fp32",
    calibration: Tensor | None = None,
) -> tuple[OpenVino, dict[str, float]]:
    """Turns a module into one that OpenVINO runs, and returns it with the least cosine by key.

    Args:
        precision: "bf16" is a hint that CPUs without it ignore; "int8" quantises weights and activations.
        calibration: for int8, some dozens of real images, float32 [n, 3, h, w].

    Raises:
        RequestInvalid: openvino (for int8 also nncf) is not installed, or int8 is asked without calibration.
        VerificationFailed: the values are further off than the precision allows.
    """
    if precision == "int8" and calibration is None:
        raise RequestInvalid("int8 needs calibration images; give some dozens of real ones")
    runtime = _needed("openvino", "openvino")
    model = runtime.convert_model(export_graph(module, example))
    if calibration is not None and precision == "int8":
        model = _quantised(model, calibration)
    hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    compiled = OpenVino(runtime.compile_model(model, "CPU", hint), tuple(_reference(module, example)))
    return compiled, _verified(module, compiled, example, precision, "OpenVINO")


def _quantised(model: Any, calibration: Tensor) -> Any:
    nncf = _needed("nncf", "nncf")
    images = [image[None].numpy() for image in calibration]
    return nncf.quantize(model, nncf.Dataset(images), subset_size=len(images))


def _needed(module: str, packages: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise RequestInvalid(f"this needs {module}; run: pip install {packages}") from None


def _reference(module: nn.Module, images: Tensor) -> Mapping[str, Tensor]:
    with torch.inference_mode():
        outputs: Mapping[str, Tensor] = module(images)
    return outputs


def _verified(
    module: nn.Module, run: Callable[[Tensor], Outputs], example: Tensor, precision: str, runtime: str
) -> dict[str, float]:
    """Compares on the example and on a batch of another size, so that a batch that was fixed shows."""
    worst: dict[str, float] = {}
    for images in (example, torch.cat([example, example[:1]])):
        for key, cosine in least_cosines(_reference(module, images), run(images)).items():
            worst[key] = min(cosine, worst.get(key, 1.0))
    key = min(worst, key=worst.__getitem__)
    if worst[key] < LEAST_COSINE[precision]:
        raise VerificationFailed(
            f"{runtime} in {precision} gives {key!r} at cosine {worst[key]:.5f}, "
            f"under {LEAST_COSINE[precision]}"
        )
    return worst
