"""Leaving the user's model as it was found, bit for bit, whatever is done with it in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_CONTAINERS = (dict, list, set)


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Restores mode flags, attributes, caches and buffers of all modules of `model` at the end, also after an
    error.

    Attributes are restored by identity, the contents of dicts, lists and sets one level deep. Buffers get
    their values back. Parameters are not copied: nothing that runs inside may change their values.
    """
    attributes = [(module.__dict__, dict(module.__dict__)) for module in model.modules()]
    values = [value for _, saved in attributes for value in saved.values()]
    contents = [(value, _items(value) if value else []) for value in values if isinstance(value, _CONTAINERS)]
    buffers = [
        (buffer, buffer.detach().clone()) for buffer in model.buffers() if buffer.device.type != "meta"
    ]
    try:
        yield
    finally:
        for current, saved in attributes:
            current.clear()
            current.update(saved)
        for container, items in contents:
            if container or items:
                _restore(container, items)
        with torch.no_grad():
            for buffer, before in buffers:
                if not _same_bits(buffer, before):
                    buffer.copy_(before)


def _items(container: Any) -> list[Any]:
    return list(container.items() if isinstance(container, dict) else container)


def _restore(container: Any, items: list[Any]) -> None:
    now = _items(container)
    pairs = zip(now, items, strict=False)
    same = (a[0] is b[0] and a[1] is b[1] if isinstance(container, dict) else a is b for a, b in pairs)
    if len(now) == len(items) and all(same):
        return
    container.clear()
    container.extend(items) if isinstance(container, list) else container.update(items)


def _same_bits(left: Tensor, right: Tensor) -> bool:
    def bits(tensor: Tensor) -> Tensor:
        return tensor.detach().reshape(-1).view(torch.uint8)

    return left.shape == right.shape and torch.equal(bits(left), bits(right))
