"""Holds extractors of many models against hooks: names, values at two batch sizes, other image sizes.

    python benchmarks/extractor_sweep.py names                 node names against torchvision's own lists
    python benchmarks/extractor_sweep.py torchvision [WORD]    all leaf modules of every torchvision model
    python benchmarks/extractor_sweep.py timm [WORD]           one model of each timm family
    python benchmarks/extractor_sweep.py towers                Hugging Face and open_clip vision towers
    python benchmarks/extractor_sweep.py leaves                seconds to list models of many leaf modules

Weights are random. Each model is captured at batch 1 and compared, in eval mode, at batches 1 and 3. WORD
keeps the models whose name contains it. One line per model; the last line counts. timm, transformers and
open_clip_torch are needed for the parts that name them.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator

import torch
import torchvision
from lookalike_extractor import create_feature_extractor, get_graph_node_names
from lookalike_extractor.errors import LookalikeError
from sweep_models import Case, Inputs, made_light, timm_models, torchvision_models, towers
from torch import nn
from torchvision.models import feature_extraction


def compare(make: Callable[[], nn.Module], inputs: Inputs) -> str:
    """Captures a model and tells how, and how it compares; raises where it does not."""
    torch.manual_seed(0)
    model = make().eval()
    example = inputs(1)
    train, names = get_graph_node_names(model, suppress_diff_warning=True, example_inputs=example)
    modules = dict(model.named_modules())
    leaves = [name for name in names if name in modules or re.sub(r"_\d+$", "", name) in modules]
    request = {
        "train_return_nodes": [name for name in leaves if name in set(train)],
        "eval_return_nodes": leaves,
    }
    extractor = create_feature_extractor(
        model, **request, suppress_diff_warning=True, example_inputs=example
    ).eval()
    result = extractor.verification
    gaps = [gap for gap in result.differences.values() if gap]
    unseen = sum(gap is None for gap in result.differences.values())
    sizes = f"batches {result.batch_sizes}" + (f" refused {list(result.refused)}" if result.refused else "")
    equal = "bit-equal" if not gaps else f"largest difference {max(gaps):.2g}"
    other = _other_size(model, extractor, example[0])
    return f"{extractor.capture.used}: {len(leaves)} taps, {unseen} unseen, {sizes}, {equal}, {other}"


def _other_size(model: nn.Module, extractor: nn.Module, image: object) -> str:
    """Whether an image of another size is refused, or right at the last module that the model runs."""
    if not isinstance(image, torch.Tensor) or image.dim() != 4:
        return "other sizes not tried"
    larger = torch.randn(2, *image.shape[1:-2], image.shape[-2] + 32, image.shape[-1] + 32)
    with torch.no_grad():
        try:
            out = extractor(larger)
        except Exception:  # whatever the model itself raises there
            return "other sizes refused"
        last = next(name for name in reversed(out) if name in dict(model.named_modules()))
        seen: list[torch.Tensor] = []
        handle = model.get_submodule(last).register_forward_hook(lambda _, __, value: seen.append(value))
        model(larger)
        handle.remove()
    return "other sizes right" if torch.equal(out[last], seen[0]) else "OTHER SIZES WRONG"


def names_line(name: str) -> str:
    """How the names of one torchvision model compare with torchvision's."""
    model = made_light(name)
    try:
        theirs = feature_extraction.get_graph_node_names(model, suppress_diff_warning=True)
    except Exception:
        return "not traced by torchvision"
    if get_graph_node_names(model, names="torchvision", suppress_diff_warning=True) != theirs:
        return "DIFFERENT"
    exact = get_graph_node_names(model, suppress_diff_warning=True)
    return (
        "equal"
        if exact == theirs
        else f"equal; {sum(a != b for a, b in zip(exact[1], theirs[1], strict=True))} exact names differ"
    )


def compare_all(cases: Iterator[Case], word: str) -> Counter[str]:
    """Prints a line for each model whose name contains `word`; counts their outcomes."""
    counts: Counter[str] = Counter()
    for name, make, inputs in cases:
        if word not in name:
            continue
        start = time.monotonic()
        try:
            line = compare(make, inputs)
        except LookalikeError as error:
            line = f"REFUSED: {error.message}"
        except Exception as error:
            line = f"FAULT: {type(error).__name__}: {error}"
        counts[line.split(":")[0] + (" bit-equal" if "bit-equal" in line else "")] += 1
        print(f"{name}: {line} ({time.monotonic() - start:.0f} s)", flush=True)
    return counts


def name_all(word: str) -> Counter[str]:
    """Prints a line for each torchvision model that torchvision can trace; counts how the names compare."""
    counts: Counter[str] = Counter()
    for name in torchvision.models.list_models():
        if word in name:
            line = names_line(name)
            counts[re.sub(r"\d+", "n", line)] += 1
            print(f"{name}: {line}", flush=True)
    return counts


class Block(nn.Module):
    """Three leaf modules and an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(x))) + x


def list_many_leaves() -> None:
    for leaves in (1_250, 2_500, 5_000, 10_000):
        model = nn.Sequential(*[Block() for _ in range(math.ceil(leaves / 3))])
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            get_graph_node_names(model)
            seconds.append(time.perf_counter() - start)
        print(f"{leaves:6,} leaf modules: {statistics.median(seconds):.2f} s", flush=True)


PARTS = {"torchvision": torchvision_models, "timm": timm_models, "towers": towers}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["names", *PARTS, "leaves"])
    parser.add_argument("word", nargs="?", default="")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.part == "leaves":
        list_many_leaves()
    elif asked.part == "names":
        print(dict(name_all(asked.word)))
    else:
        print(dict(compare_all(PARTS[asked.part](), asked.word)))


if __name__ == "__main__":
    main()
