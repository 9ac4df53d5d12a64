"""What all servers of the comparison share: the same decoding and the same model, on the same cores."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# In an interpreter where only a peer is installed, the rest is found where the product's own finds it.
sys.path += os.environ.get("SHARED_PATH", "").split(os.pathsep)

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

MAX_BATCH = int(os.environ.get("MODEL_BATCH", "32"))

_LAST = {"resnet50": "layer4", "efficientnet_lite0": "blocks.15"}


class Work:
    """Decodes and computes as Lookalike's engine does, without its engine.

    Args:
        name: "tiny", two convolutions on 16 x 16 pixels, or a backbone, pooled at its last stage.

    MODEL_DEVICE and MODEL_RUNTIME in the environment say where, "cpu" when it is not set, and what in.
    """

    def __init__(self, name: str) -> None:
        from lookalike_server.device import set_threads, tune_allocator
        from lookalike_server.devices import device_on
        from lookalike_server.runtimes import choose

        set_threads(int(os.environ.get("MODEL_THREADS", "2")))
        tune_allocator()
        models = _models(name)
        where, runtime = os.environ.get("MODEL_DEVICE", "cpu"), os.environ.get("MODEL_RUNTIME", "eager")
        chosen = choose(models, runtime, where, MAX_BATCH)
        self.device = device_on(where, chosen)
        self.preprocessing = models[0].preprocessing

    def decode(self, data: bytes) -> np.ndarray:
        """Raises lookalike_extractor.errors.ImageError."""
        from lookalike_extractor.images import decode, sniff

        return decode(data, self.preprocessing, header=sniff(data))

    def compute(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """Returns descriptors float32 [n, d]."""
        return next(iter(self.device.run(0, pixels).values()))


def device_of(name: str, wishes: Sequence[str]) -> Any:
    """The device of that model, for a process of its own; what it runs in is told by the environment."""
    return Work(name).device


def recipe_of(name: str) -> Any:
    from lookalike_extractor.recipe import Recipe, Tap

    tap = Tap("conv") if name == "tiny" else Tap(_LAST[name], "avg")
    return Recipe(name, name, (tap,), None, None, None, 0.9)


def _models(name: str) -> list[Any]:
    if name == "tiny":
        from serving import TinyModel

        return [TinyModel()]
    import torch
    from lookalike_extractor.backbones import default_preprocessing, load_backbone
    from lookalike_extractor.backbones.base import Backbone
    from lookalike_extractor.descriptor import DescriptorModel
    from torchvision.models import get_model

    if name == "efficientnet_lite0":
        backbone = load_backbone(name)
    else:  # weights do not change what a model costs, so that none need to be fetched
        torch.manual_seed(1)
        backbone = Backbone(name, get_model(name).eval(), default_preprocessing(name), "of no weights")
    return [DescriptorModel(backbone, [recipe_of(name)])]


def jpegs(count: int = 32) -> list[bytes]:
    """Different photos of about 500 x 375 pixels, always the same."""
    from photos import encode, photo

    names = ("chelsea", "coffee", "astronaut", "rocket")
    sizes = [(500 - 4 * (i // len(names)), 375) for i in range(count)]
    return [encode(photo(names[i % len(names)]).resize(size), quality=90) for i, size in enumerate(sizes)]
