"""Each export of each kind of extractor, held against the extractor itself at batches 1 and 3.

    python benchmarks/exports.py [--models resnet18 hiera] [--exports onnx openvino:int8] [--images FOLDER]

Models: convolutions, with real weights (EfficientNet-Lite0) and with random ones, a transformer that can be
traced, and two that can only be captured by running them. Images are those that scikit-image ships, or a
folder's; half of them calibrate int8, the other half measure. A line has the worst of all taps and images,
and says so when that is not good enough for the precision. timm, transformers, onnx, onnxscript, onnxruntime,
openvino and nncf are needed for the lines that name them.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from lookalike_extractor import create_feature_extractor, optimize
from lookalike_extractor.agreement import LEAST_COSINE, tap_errors
from lookalike_extractor.backbones import default_preprocessing, load_backbone
from lookalike_extractor.errors import LookalikeError
from photographs import photographs
from torch import Tensor, nn
from torchvision.models import VisionTransformer, get_model

EXPORTS = ("compile", "aot", "onnx", "openvino", "openvino:bf16", "openvino:int8")
COLUMNS = "{:20} {:10} {:14} {:>10} {:>10} {:>6}  {}"


def dinov2() -> nn.Module:
    import transformers

    config = transformers.Dinov2Config(
        hidden_size=192, num_hidden_layers=2, num_attention_heads=3, image_size=224, patch_size=16
    )
    model: nn.Module = transformers.Dinov2Model(config)
    return model


def hiera() -> nn.Module:
    import timm

    model: nn.Module = timm.create_model("hiera_tiny_224", embed_dim=48, stages=(1, 1, 2, 1))
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "resnet18": (lambda: get_model("resnet18"), ("layer1", "layer2.0.conv1", "layer3", "layer4")),
    "efficientnet_lite0": (
        lambda: load_backbone("efficientnet_lite0").module,
        ("blocks.5.expand", "blocks.11.expand", "head"),
    ),
    "vit": (
        lambda: VisionTransformer(224, 16, 4, 3, 192, 768),
        ("encoder.layers.encoder_layer_0", "encoder.ln"),
    ),
    "dinov2": (dinov2, ("encoder.layer.0", "layernorm")),
    "hiera": (hiera, ("blocks.1", "blocks.3")),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--exports", nargs="+", choices=EXPORTS, default=EXPORTS)
    parser.add_argument("--images", type=Path, help="a folder of photos instead of scikit-image's")
    options = parser.parse_args()
    images = photographs(options.images, default_preprocessing("resnet18"), most=24)
    print(COLUMNS.format("model", "capture", "export", "cosine", "largest", "s", "precision"))
    for name in options.models:
        make, nodes = MODELS[name]
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            extractor = create_feature_extractor(make().eval(), list(nodes), example_inputs=images[:2]).eval()
        for export in options.exports:
            print(line(name, extractor, export, images), flush=True)


def line(name: str, extractor: nn.Module, export: str, images: Tensor) -> str:
    runtime, _, precision = export.partition(":")
    half = len(images) // 2
    started = time.perf_counter()
    try:
        done = optimize(
            extractor,
            images[:2],
            runtime=runtime,  # type: ignore[arg-type]
            precision=precision or "fp32",  # type: ignore[arg-type]
            calibration=images[half:],
            least_cosine=0.0 if precision == "int8" else None,
        )
    except LookalikeError as error:
        return COLUMNS.format(name, extractor.capture.used, export, "", "", "", f"none: {error}")
    seconds = time.perf_counter() - started
    with torch.inference_mode():
        errors = [
            error
            for batch in (images[:1], images[2:5], images[5:half])
            for error in tap_errors(extractor(batch), done.module(batch)).values()
        ]
    cosine, largest = min(error.cosine for error in errors), max(error.largest for error in errors)
    remark = "" if cosine >= LEAST_COSINE[done.precision] else f" (under {LEAST_COSINE[done.precision]})"
    return COLUMNS.format(
        name,
        extractor.capture.used,
        export,
        f"{cosine:.6f}",
        f"{largest:.1e}",
        f"{seconds:.0f}",
        f"{done.precision}{remark}",
    )


if __name__ == "__main__":
    main()
