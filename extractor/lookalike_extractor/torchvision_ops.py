"""torchvision's own operations, for those who must know them where they meet them.

They are not imported for that: torchvision takes seconds, and a model that uses them has loaded it.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from types import ModuleType

from torch import nn


def torchvision_ops() -> tuple[ModuleType, ...]:
    """The module torchvision.ops if it is loaded, or nothing."""
    if "torchvision.ops" not in sys.modules:
        return ()
    ops = importlib.import_module("torchvision.ops")
    _modules(ops)  # before whoever asks begins to trace: torch.fx then has functions in the classes' places
    return (ops,)


def torchvision_modules(*names: str) -> tuple[type[nn.Module], ...]:
    """Its classes of modules, or those of the names."""
    return tuple(
        kind for ops in torchvision_ops() for kind in _modules(ops) if kind.__name__ in names or not names
    )


@cache
def _modules(ops: ModuleType) -> list[type[nn.Module]]:
    return [value for value in vars(ops).values() if isinstance(value, type) and issubclass(value, nn.Module)]
