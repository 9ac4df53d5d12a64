"""The models that extractor_sweep.py holds against hooks, and what each of them takes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator

import torch
import torchvision
from torch import nn

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


def made_light(name: str) -> nn.Module:
    """A torchvision model without memory for its weights, where its making allows that."""
    arguments = _without_weights(name)
    try:
        with torch.device("meta"):
            return torchvision.models.get_model(name, **arguments)
    except NotImplementedError:  # RegNets read their weights' values while they are made
        return torchvision.models.get_model(name, **arguments)
