"""Images per second of a multi-output extractor: torchvision's, eager, against ours, optimised, in one run.

    python benchmarks/extractor.py [--device cuda] [--models resnet50] [--batches 1 8 32] [--images FOLDER]
                                   [--ways eager compile openvino openvino:int8] [--seconds 4]
                                   [--plain-allocator]

For each model and batch: the bare model, torchvision's extractor, ours as it is made, and ours optimised in
each way that works here. Each figure is the best of several rounds, in which all take turns, so that a busy
machine disturbs them alike; in brackets its ratio to torchvision's. The allocator keeps large blocks, for all
of them; with --plain-allocator it is as the system has it, for all of them too. The share is that of the
fastest fp32 (bf16) way in torch's best matrix product in fp32 (bf16).

Before each model's figures stand the least cosines with the eager extractor, over all images and taps: of the
raw maps, and of their averages as descriptors are made of. Images are those that scikit-image ships, or a
folder's; int8 is calibrated on other photos than it is measured on. Weights are random where none are
packaged: speed does not depend on them, but int8 is then further off than with real ones.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from lookalike_extractor import available_runtimes, create_feature_extractor, describe_nodes, optimize
from lookalike_extractor.agreement import least_cosines
from lookalike_extractor.backbones import default_preprocessing, load_backbone
from lookalike_extractor.errors import LookalikeError
from lookalike_extractor.optimization import has_bf16
from lookalike_server.device import tune_allocator
from photographs import photographs
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor as torchvision_extractor

NODES = {
    "resnet50": ("layer1", "layer2", "layer3", "layer4"),
    "vit_b_16": ("encoder.layers.encoder_layer_5.add_1", "encoder.layers.encoder_layer_11.add_1"),
    "efficientnet_lite0": ("blocks.5.expand", "blocks.11.expand", "head"),
}
WAYS = (
    "eager",
    "eager:bf16",
    "compile",
    "compile:bf16",
    "onnx",
    "openvino",
    "openvino:bf16",
    "openvino:int8",
)
REFERENCES = ("bare", "torchvision", "ours")

Run = Callable[[Tensor], object]


def main() -> None:
    options = arguments()
    if not options.plain_allocator:
        tune_allocator()
    device = torch.device(options.device)
    ways = usable(options.ways, device)
    peaks = {"fp32": matrix_peak(device, torch.float32)}
    if has_bf16(device):
        peaks["bf16"] = matrix_peak(device, torch.bfloat16)
    print(f"{processor(device)}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(
        "best matrix product: " + ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {p}" for p, rate in peaks.items())
    )
    for name in options.models:
        images = photographs(options.images, default_preprocessing(name), most=48)
        model, runs = prepared(name, device, ways, images)
        flops = cost(model, NODES[name], images[:1].to(device))
        print(row("batch", runs, "share"))
        for batch in options.batches:
            rates = best_rates(runs, some(images, batch).to(device), options.seconds)
            print(figures(batch, rates, flops, peaks), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+", choices=NODES, default=list(NODES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[way for way in WAYS if way != "onnx"])
    parser.add_argument(
        "--seconds",
        type=float,
        default=4.0,
        help="per figure; two rounds at least, of which the first warms up",
    )
    parser.add_argument("--images", type=Path, help="a folder of photos instead of scikit-image's")
    parser.add_argument(
        "--plain-allocator", action="store_true", help="as in a program that does not tune its allocator"
    )
    return parser.parse_args()


def usable(ways: Sequence[str], device: torch.device) -> list[str]:
    """Those that work here; the others are told with the reason."""
    missing = available_runtimes(device)
    found = []
    for way in ways:
        runtime, _, precision = way.partition(":")
        reason = missing[runtime]  # type: ignore[index]
        if precision == "bf16" and not has_bf16(device):
            reason = f"{device} does not multiply bfloat16 in hardware"
        if reason:
            print(f"without {way}: {reason}")
        else:
            found.append(way)
    return found


def prepared(
    name: str, device: torch.device, ways: Sequence[str], images: Tensor
) -> tuple[nn.Module, dict[str, Run]]:
    """The model, and what takes turns: the references and every way that this model can go."""
    model = network(name).to(device)
    nodes = {node: node for node in NODES[name]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = torchvision_extractor(model, nodes).eval()
        ours = create_feature_extractor(model, nodes, verify=False).eval()
    runs: dict[str, Run] = dict(zip(REFERENCES, (model, reference, ours), strict=True))
    print(f"\n{name}")
    for way in ways:
        try:
            runs[way] = made(way, ours, device, images)
        except LookalikeError as error:
            print(f"  {way}: none: {error}")
    return model, runs


def made(way: str, ours: nn.Module, device: torch.device, images: Tensor) -> nn.Module:
    runtime, _, precision = way.partition(":")
    half = len(images) // 2
    started = time.perf_counter()
    done = optimize(
        ours,
        images[:2],
        for_device=device,
        runtime=runtime,  # type: ignore[arg-type]
        precision=precision or "fp32",  # type: ignore[arg-type]
        calibration=images[half:],
        least_cosine=0.0 if precision == "int8" else None,  # it is printed instead
    )
    seconds = time.perf_counter() - started
    maps, means = cosines(ours, done.module, images[:half].to(device))
    print(f"  {way}: cosine {maps:.5f}, averaged {means:.5f}; made in {seconds:.0f} s", flush=True)
    return done.module


def cosines(ours: nn.Module, module: nn.Module, images: Tensor) -> tuple[float, float]:
    """The least of all images and taps, of maps as they are and of their averages over all places."""
    worst = [1.0, 1.0]
    with torch.inference_mode():
        for batch in images.split(8):
            reference, other = ours(batch), module(batch)
            averaged = [{key: average(value) for key, value in maps.items()} for maps in (reference, other)]
            for i, pair in enumerate([(reference, other), averaged]):
                worst[i] = min(worst[i], *least_cosines(*pair).values())
    return worst[0], worst[1]


def average(value: Tensor) -> Tensor:
    """[n, c, h, w] -> [n, c]; [n, tokens, c] -> [n, c]."""
    return value.mean((2, 3)) if value.dim() == 4 else value.mean(1)


def network(name: str) -> nn.Module:
    if name == "efficientnet_lite0":
        return load_backbone(name).module
    torch.manual_seed(0)
    model: nn.Module = get_model(name, weights=None).eval()
    return model


def cost(model: nn.Module, nodes: Sequence[str], images: Tensor) -> float:
    """Floating-point operations for one image up to the last of the nodes."""
    table = {node.name: node.cumulative_flops for node in describe_nodes(model, images)}
    return max(
        flops for name, flops in table.items() if any(name == n or name.startswith(f"{n}.") for n in nodes)
    )


def some(images: Tensor, count: int) -> Tensor:
    return images[torch.arange(count) % len(images)]


def best_rates(runs: Mapping[str, Run], images: Tensor, seconds: float) -> dict[str, float]:
    """Images per second of each, the best of rounds that take turns."""
    best = dict.fromkeys(runs, 0.0)
    with torch.inference_mode():
        ends, rounds = time.perf_counter() + seconds * len(runs), 0
        while time.perf_counter() < ends or rounds < 2:
            rounds += 1
            for name, run in runs.items():
                best[name] = max(best[name], len(images) / seconds_of(run, images))
    return best


def seconds_of(run: Run, images: Tensor) -> float:
    started = time.perf_counter()
    run(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - started


def figures(batch: int, rates: Mapping[str, float], flops: float, peaks: Mapping[str, float]) -> str:
    eager = rates["torchvision"]
    cells = [f"{rate:.1f} ({rate / eager:.2f})" for rate in rates.values()]
    shares = []
    for precision, peak in peaks.items():
        own = [rate for way, rate in rates.items() if (way.partition(":")[2] or "fp32") == precision]
        shares.append(f"{max(own, default=0.0) * flops / peak:.0%} {precision}")
    return row(str(batch), cells, ", ".join(shares))


def row(batch: str, cells: Iterable[str], share: str) -> str:
    return f"{batch:>5} " + " ".join(f"{cell:>15}" for cell in cells) + f"  {share}"


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the best of some products of square matrices."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device).to(dtype)
    return best_rates({"product": lambda a: a @ a}, a, 2.0)["product"] / side * 2 * side**3


def processor(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = torch.cpu.get_capabilities()
    widest = next((f for f in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2") if found.get(f)), "no AVX2")
    return f"CPU ({widest}), {found.get('num_physical_cores')} cores"


if __name__ == "__main__":
    main()
