"""Example inputs: those the user gives, or one image as the model's own configuration describes it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lookalike_extractor.errors import RequestInvalid

Inputs = tuple[Any, ...]


def example_for(model: nn.Module, example_inputs: Any = None) -> Inputs:
    """The positional arguments of one call: `example_inputs`, a tensor or a tuple of arguments, else one
    image.

    The image is [1, c, h, w], of normally distributed values, in the type and on the device of the first
    parameter.
    """
    if example_inputs is None:
        return (_image_for(model),)
    if isinstance(example_inputs, Tensor):
        return (example_inputs,)
    if not isinstance(example_inputs, tuple | list):
        raise RequestInvalid(
            f"example_inputs must be a tensor or a tuple, not {type(example_inputs).__name__}."
        )
    return tuple(example_inputs)


def with_batch(inputs: Inputs, size: int) -> Inputs:
    """`inputs` with the batch axis, the first where it is as long as the first tensor's, made `size` long."""
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    given = tensors[0].shape[0] if tensors and tensors[0].dim() else 0

    def resized(tensor: Tensor) -> Tensor:
        if not given or not tensor.dim() or tensor.shape[0] != given:
            return tensor
        return tensor.index_select(0, torch.arange(size, device=tensor.device) % given)

    return tuple(tree_map_only(Tensor, resized, list(inputs)))


def _image_for(model: nn.Module) -> Tensor:
    first = next(model.parameters(), torch.empty(0))
    shape = (1, *_input_shape(model))
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return values.to(first.device, first.dtype if first.is_floating_point() else torch.float32)


def _input_shape(model: nn.Module) -> tuple[int, int, int]:
    """[c, h, w] from timm's or Hugging Face's configuration, else that of ImageNet models."""
    timm = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if isinstance(timm, dict) and timm.get("input_size"):
        channels, height, width = timm["input_size"]
        return channels, height, width
    config = getattr(model, "config", None)
    config = getattr(config, "vision_config", None) or config
    size = getattr(config, "image_size", None) or getattr(model, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    return getattr(config, "num_channels", 3), height, width
