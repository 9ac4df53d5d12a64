"""The truth that extractors are held against: copies of module outputs, taken by forward hooks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only


def hooked(model: nn.Module, *inputs: Any, seed: int = 0) -> dict[str, Any]:
    """The output of every call of every module, by path, with `_1`, `_2`, ... for repeated calls."""
    calls: Counter[str] = Counter()
    seen: dict[str, Any] = {}

    def keep(path: str, output: Any) -> None:
        name = f"{path}_{calls[path]}" if calls[path] else path
        calls[path] += 1
        seen[name] = tree_map_only(torch.Tensor, torch.clone, output)

    handles = [
        module.register_forward_hook(lambda _, __, output, path=path: keep(path, output))
        for path, module in model.named_modules()
        if path
    ]
    try:
        torch.manual_seed(seed)
        model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def same(left: Any, right: Any) -> bool:
    """Bit for bit, in tensors and structures of tensors."""
    pairs = list(zip(tree_leaves(left), tree_leaves(right), strict=True))
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)
