"""Images per second of a multi-output extractor: torchvision's, eager, against ours, optimised, in one run.

    python benchmarks/extractor.py [--device cuda] [--models resnet50 vit_b_16] [--batches 1 8 32] [--compile]

Weights are random where none are packaged (speed does not depend on them; cosines then are those of random
weights). The share of the measured matrix-product peak stands beside each rate. Each figure is the best of
several rounds, in which all take turns, so that a busy machine disturbs them alike.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from lookalike_extractor import create_feature_extractor, describe_nodes
from lookalike_extractor.backbones import load_backbone
from lookalike_extractor.heads import example_images
from lookalike_extractor.optimization import has_bf16, least_cosines, optimize
from torch import nn
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor as torchvision_extractor

NODES = {
    "resnet50": ("layer1", "layer2", "layer3", "layer4"),
    "vit_b_16": ("encoder.layers.encoder_layer_5.add_1", "encoder.layers.encoder_layer_11.add_1"),
    "efficientnet_lite0": ("blocks.5.expand", "blocks.11.expand", "head"),
}


COLUMNS = "{:20} {:>5} {:>8} {:>11} {:>8} {:>6} {:>8} {:>8}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+", choices=NODES, default=list(NODES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=4.0, help="per figure")
    parser.add_argument("--compile", action="store_true", help="torch.compile as the last step")
    options = parser.parse_args()
    device = torch.device(options.device)
    precision = "bf16" if has_bf16(device) else "fp32"
    peak = matrix_peak(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    print(f"{processor(device)}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"ours in {precision}; matrix products in {precision}: {peak / 1e9:,.0f} GFLOP/s")
    if precision == "fp32":
        print("no bfloat16 in hardware here: the bf16 goals cannot be tried")
    print(COLUMNS.format("model", "batch", "bare", "torchvision", "ours", "ratio", "of peak", "cosine"))
    for name in options.models:
        for batch in options.batches:
            print(
                row(name, batch, device, precision, peak, options.seconds, options.compile),
                flush=True,
            )


def row(
    name: str, batch: int, device: torch.device, precision: str, peak: float, seconds: float, compiled: bool
) -> str:
    model = network(name).to(device)
    nodes = {node: node for node in NODES[name]}
    images = example_images(224, 224, batch).to(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = torchvision_extractor(model, nodes).eval()
        ours = create_feature_extractor(model, nodes, verify=False).eval()
    module = optimize(ours, images, for_device=device, precision=precision, compiled=compiled).module
    ready = images.contiguous(memory_format=torch.channels_last)
    bare, eager, fast = best_rates(
        [lambda: model(images), lambda: reference(images), lambda: module(ready)], batch, seconds, device
    )
    with torch.inference_mode():
        cosine = min(least_cosines(reference(images), module(ready)).values())
    share = fast * describe_nodes(model, images[:1])[-1].cumulative_flops / peak
    figures = (
        f"{bare:.1f}",
        f"{eager:.1f}",
        f"{fast:.1f}",
        f"{fast / eager:.2f}",
        f"{share:.0%}",
        f"{cosine:.5f}",
    )
    return COLUMNS.format(name, batch, *figures)


def network(name: str) -> nn.Module:
    if name == "efficientnet_lite0":
        return load_backbone(name).module
    torch.manual_seed(0)
    model: nn.Module = get_model(name, weights=None).eval()
    return model


def best_rates(
    runs: Sequence[Callable[[], object]], batch: int, seconds: float, device: torch.device
) -> list[float]:
    """Images per second of each, the best of rounds that take turns."""
    best = [0.0] * len(runs)
    with torch.inference_mode():
        for run in runs:
            run()
        ends = time.perf_counter() + seconds * len(runs)
        while time.perf_counter() < ends:
            for i, run in enumerate(runs):
                best[i] = max(best[i], batch / seconds_of(run, device))
    return best


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the best of some products of square matrices."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device).to(dtype)
    (rate,) = best_rates([lambda: a @ a], 1, 1.0, device)
    return rate * 2 * side**3


def processor(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = torch.cpu.get_capabilities()
    widest = next((f for f in ("avx512_bf16", "avx512_f", "avx2") if found.get(f)), "no AVX2")
    return f"{found.get('cpu_name', 'CPU')} ({widest})"


if __name__ == "__main__":
    main()
