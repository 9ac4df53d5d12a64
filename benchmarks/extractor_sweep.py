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

import functools
import inspect
import math
import re
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator

import torch
import torchvision
from lookalike_extractor import create_feature_extractor, get_graph_node_names
from lookalike_extractor.errors import LookalikeError
from torch import nn
from torchvision.models import feature_extraction

Inputs = Callable[[int], tuple[object, ...]]  # by batch size
Case = tuple[str, Callable[[], nn.Module], Inputs]

_VIDEOS = {"mvit": (16, 224), "s3d": (16, 224), "swin3d": (8, 224)}  # frames and size; the others: 8 and 112


def torchvision_models() -> Iterator[Case]:
    for name in torchvision.models.list_models():
        options = _without_weights(name)
        yield name, lambda name=name, options=options: _made(name, options), _inputs_of(name)


def _made(name: str, options: dict[str, object]) -> nn.Module:
    return torchvision.models.get_model(name, **options)


def _inputs_of(name: str) -> Inputs:
    """What one model of torchvision takes: images, videos, pairs of images, or a list of images."""
    module = torchvision.models.get_model_builder(name).__module__
    if "optical_flow" in module:
        return lambda batch: (torch.rand(batch, 3, 128, 128), torch.rand(batch, 3, 128, 128))
    if "video" in module:
        frames, size = next((shape for word, shape in _VIDEOS.items() if name.startswith(word)), (8, 112))
        return lambda batch: (torch.rand(batch, 3, frames, size, size),)
    if "detection" in module:
        return lambda batch: ([torch.rand(3, 240, 320) for _ in range(batch)],)
    return images_of(224 if name.startswith(("vit", "maxvit")) else 96)


def images_of(size: int) -> Inputs:
    return lambda batch: (torch.randn(batch, 3, size, size),)


def _without_weights(name: str) -> dict[str, object]:
    """Options of a builder of torchvision so that nothing is downloaded and little time lost."""
    known = inspect.signature(torchvision.models.get_model_builder(name)).parameters
    options = {"weights": None, "weights_backbone": None, "init_weights": False}
    return {option: value for option, value in options.items() if option in known or option == "weights"}


def timm_models() -> Iterator[Case]:
    import timm

    for family in timm.list_modules():
        names = [name for name in timm.list_models(module=family) if not name.endswith(("_in21k", "_in22k"))]
        sized = [(name, timm.models.get_pretrained_cfg(name)) for name in names]
        if sized:
            name, cfg = min(sized, key=lambda pair: (_weight(pair[0]), len(pair[0])))
            size = cfg.input_size[-1] if cfg else 224
            # Taps of all leaves at once would not fit into memory at 768 pixels.
            smaller = {"img_size": 224} if size > 448 and cfg.fixed_input_size else {}
            make = functools.partial(timm.create_model, name, **smaller)
            yield name, make, images_of(size if size <= 448 else 224)


def _weight(name: str) -> int:
    """Guesses from a model's name which of its family is small."""
    order = (
        "atto",
        "femto",
        "pico",
        "nano",
        "xxs",
        "xxt",
        "_xs",
        "tiny",
        "small",
        "_t",
        "_s",
        "_0",
        "b0",
        "18",
    )
    return next((rank for rank, word in enumerate(order) if word in name), len(order))


def towers() -> Iterator[Case]:
    import open_clip
    import transformers as hf

    thin = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    clip = thin | {"intermediate_size": 128, "image_size": 64, "patch_size": 16}
    swin = {
        "image_size": 64,
        "patch_size": 2,
        "embed_dim": 16,
        "depths": [2, 2],
        "num_heads": [2, 4],
        "window_size": 4,
    }
    convnext = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 2, 1]}
    yield (
        "hf dinov2",
        lambda: hf.Dinov2Model(hf.Dinov2Config(image_size=56, patch_size=14, **thin)),
        images_of(56),
    )
    yield "hf vit", lambda: hf.ViTModel(hf.ViTConfig(**clip)), images_of(64)
    yield "hf swin", lambda: hf.SwinModel(hf.SwinConfig(**swin)), images_of(64)
    yield "hf convnext", lambda: hf.ConvNextModel(hf.ConvNextConfig(**convnext)), images_of(64)
    yield "hf clip", lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**clip)), images_of(64)
    yield "hf siglip", lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**clip)), images_of(64)
    tower = open_clip.CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=16, image_size=64)
    yield "open_clip vit", lambda: open_clip.model._build_vision_tower(32, tower), images_of(64)


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


def _light(name: str) -> nn.Module:
    """A torchvision model without memory for its weights, where its making allows that."""
    arguments = _without_weights(name)
    try:
        with torch.device("meta"):
            return torchvision.models.get_model(name, **arguments)
    except NotImplementedError:  # RegNets read their weights' values while they are made
        return torchvision.models.get_model(name, **arguments)


def names_line(name: str) -> str:
    """How the names of one torchvision model compare with torchvision's."""
    model = _light(name)
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
    warnings.simplefilter("ignore")
    part, word = sys.argv[1], (sys.argv[2:] or [""])[0]
    if part == "leaves":
        list_many_leaves()
    elif part == "names":
        print(dict(name_all(word)))
    else:
        print(dict(compare_all(PARTS[part](), word)))


if __name__ == "__main__":
    main()
