"""Backbones by name: networks, their weights and what they expect of an image.

A new family is one small file with a class that keeps base.Family's contract, added to _FAMILIES here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lookalike_extractor.errors import BackboneUnknown, did_you_mean
from lookalike_extractor.preprocessing import Preprocessing

from .base import Backbone, BackboneInfo, Family
from .checkpoints import digest, fill, read_checkpoint
from .efficientnet_lite import EfficientNetLite
from .face_resnet import FaceResNets
from .torchvision_models import TorchvisionModels

# Names are looked up in this order, and torchvision takes seconds to be asked.
_FAMILIES: tuple[Family, ...] = (EfficientNetLite(), FaceResNets(), TorchvisionModels())


def load_backbone(name: str, weights: str | Path | None = None) -> Backbone:
    """Makes a network and fills it with its own weights, or with those of a checkpoint.

    Args:
        name: one of list_backbones().
        weights: path of a safetensors file, or of a state dict that torch.save wrote; None means its own.

    Raises:
        BackboneUnknown: no such name; the nearest ones are told.
        WeightsUnavailable: the weights cannot be downloaded or read.
        CheckpointMismatch: the checkpoint belongs to another architecture.
    """
    family = _family(name)
    if weights is None:
        state, source = family.own_weights(name), f"the package of {name}'s weights"
    else:
        state, source = family.adapt(name, read_checkpoint(Path(weights))), f"the checkpoint {str(weights)!r}"
    module = family.create(name).eval()
    fill(module, state, source)
    preprocessing = dataclasses.replace(family.preprocessing(name), align=family.aligner(module))
    return Backbone(name, module, preprocessing, digest(module))


def list_backbones() -> list[BackboneInfo]:
    """All backbones: those with packaged weights first, then by name."""
    infos = [info for family in _FAMILIES for info in family.infos()]
    return sorted(infos, key=lambda info: (info.weights != "packaged", info.name))


def create_architecture(name: str) -> nn.Module:
    """The network alone, in eval mode, on the meta device: all that a listing needs, and no memory.

    Raises:
        BackboneUnknown: no such name; the nearest ones are told.
    """
    with torch.device("cpu"), _WithoutMemory():
        return _family(name).create(name).eval().to("meta")


def default_preprocessing(name: str) -> Preprocessing:
    """What the backbone's own weights expect of an image. Raises BackboneUnknown."""
    return _family(name).preprocessing(name)


class _WithoutMemory(TorchFunctionMode):
    """Layers make weights with torch.empty. All else stays real: some networks compute their widths."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        extra = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **(kwargs or {}) | extra)


def _family(name: str) -> Family:
    for family in _FAMILIES:
        if name in (info.name for info in family.infos()):
            return family
    names = [info.name for info in list_backbones()]
    raise BackboneUnknown(f"there is no backbone {name!r}.{did_you_mean(name, names)}")


__all__ = [
    "Backbone",
    "BackboneInfo",
    "create_architecture",
    "default_preprocessing",
    "list_backbones",
    "load_backbone",
]
