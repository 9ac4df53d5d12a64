"""Extractors as files for other runtimes: ONNX, AOTInductor and OpenVINO, each held against its module.

All take a module in eval mode, on the CPU, that yields {key: tensor} for float32 [n, 3, h, w], and keep its
keys, in order, as the names of the outputs; the input is called "image". The batch is free, the image size is
that of the example.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .agreement import LEAST_COSINE, Precision, TapError, expected, shortfall, worst_errors
from .conversion import converting, export_graph, keys_of, openvino_model
from .errors import RequestInvalid, VerificationFailed
from .runtimes import AOT_SHAPE, AotPackage, OnnxRuntime, OpenVino, needed, require_compiler


def export_onnx(module: nn.Module, example: Tensor, path: Path) -> dict[str, TapError]:
    """Writes an ONNX file, runs it with ONNX Runtime, and returns how far it is off by key.

    Args:
        example: real images of the size to come, float32 [n, 3, h, w], n >= 2; the file is compared on them.

    Raises:
        CaptureFailed: torch.export or the conversion does not take the module.
        RequestInvalid: it is in train mode, the example has one image only, or a package is missing.
        VerificationFailed: ONNX Runtime gives other values.
    """
    path.write_bytes(onnx_bytes(module, example))
    return _checked(module, OnnxRuntime.load(path), example, "fp32", "ONNX Runtime")


def export_aot(module: nn.Module, example: Tensor, path: Path) -> dict[str, TapError]:
    """Compiles ahead of time into a package (.pt2) for this kind of processor. Otherwise as export_onnx.

    The device is that of the module and the example. A C++ compiler is needed.
    """
    write_aot(module, example, path)
    return _checked(module, AotPackage(path), example, "fp32", "AOTInductor")


def export_openvino(
    module: nn.Module,
    example: Tensor,
    path: Path,
    *,
    precision: Precision = "fp32",
    calibration: Tensor | None = None,
    least_cosine: float | None = None,
) -> dict[str, TapError]:
    """Writes an OpenVINO model, an .xml file with the weights beside it. Otherwise as export_onnx.

    Args:
        precision: "bf16" is a wish that a CPU without it ignores; "int8" quantises weights and activations.
        calibration: for int8, some dozens of real images, float32 [n, 3, h, w].
        least_cosine: what is still good enough; None is LEAST_COSINE of the precision.
    """
    images = calibration_for(precision, calibration)
    model = openvino_model(module, example)
    if images is not None:
        model = quantized(model, images)
    needed("openvino").save_model(model, str(path), compress_to_fp16=False)
    runtime = OpenVino.load(str(path), precision)
    return _checked(module, runtime, example, precision, "OpenVINO", least_cosine)


def onnx_bytes(module: nn.Module, example: Tensor) -> bytes:
    """The content of an ONNX file. Raises as export_onnx does, but compares nothing."""
    for package in ("onnx", "onnxscript"):
        needed(package)
    graph = export_graph(module, example).run_decompositions({_attention: _attention_of_any_rank})
    names = keys_of(module, example)
    with converting("torch.onnx"):
        program: Any = torch.onnx.export(graph, input_names=["image"], output_names=names, verbose=False)
        return bytes(program.model_proto.SerializeToString())


def write_aot(module: nn.Module, example: Tensor, path: Path) -> None:
    """Writes a package of AOTInductor. Raises as export_aot does, but compares nothing."""
    require_compiler(example.device)
    graph = export_graph(module, example)
    options = {"aot_inductor.metadata": {AOT_SHAPE: " ".join(map(str, example.shape[1:]))}}
    with converting("AOTInductor"):
        torch._inductor.aoti_compile_and_package(graph, package_path=str(path), inductor_configs=options)


def calibration_for(precision: Precision, images: Tensor | None) -> Tensor | None:
    """The images to quantise with; None where nothing is quantised.

    Raises:
        RequestInvalid: they are needed and not given, or nncf is not installed.
    """
    if precision != "int8":
        return None
    if images is None or not len(images):
        raise RequestInvalid("int8 needs calibration images; give some dozens of real ones")
    needed("nncf")
    return images


def quantized(model: Any, calibration: Tensor) -> Any:
    """An OpenVINO model in int8, with ranges learned from images float32 [n, 3, h, w]."""
    nncf = needed("nncf")
    kinds = {operation.get_type_name() for operation in model.get_ops()}
    images = [image[None].numpy() for image in calibration.cpu()]
    with converting("nncf"), _quiet("nncf"), contextlib.redirect_stdout(io.StringIO()):  # progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(images),
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER if kinds & _ATTENTION else None,
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=_overflow_fix(nncf)),
        )


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Lets a logger pass errors alone. Its handlers may be others' too: their levels stay as they are."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


_ATTENTION = {"ScaledDotProductAttention", "Softmax"}  # names of OpenVINO's operations


def _overflow_fix(nncf: Any) -> Any:
    """Weights at half their range where sums of two products overflow 16 bits: on CPUs without VNNI."""
    features = torch.cpu.get_capabilities()
    sums_in_32_bits = any(features.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))
    return nncf.OverflowFix.DISABLE if sums_in_32_bits else nncf.OverflowFix.ENABLE


_attention = torch.ops.aten.scaled_dot_product_attention.default


def _attention_of_any_rank(query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
    """Attention with more than two leading axes as attention with two, all that ONNX's exporter takes."""
    if query.dim() <= 4 or args or options.get("attn_mask") is not None:
        return NotImplemented
    flat = (tensor.flatten(0, -4) for tensor in (query, key, value))
    return _attention(*flat, **options).unflatten(0, query.shape[:-3])


def _checked(
    module: nn.Module,
    runtime: nn.Module,
    example: Tensor,
    precision: Precision,
    name: str,
    least_cosine: float | None = None,
) -> dict[str, TapError]:
    errors = worst_errors(expected(module, example), runtime)
    short = shortfall(errors, LEAST_COSINE[precision] if least_cosine is None else least_cosine)
    if short:
        raise VerificationFailed(f"{name} in {precision}: {short}")
    return errors
