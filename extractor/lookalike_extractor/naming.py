"""Names of graph nodes, in the two readings of the same convention.

A node is named by the dotted path of the module being executed, then the operation; a leaf module is its path
alone; repeats get `_1`, `_2`, ... counted within the direct parent.

- `exact` follows that convention to the letter: a module's path is never altered, and nothing else takes it.
- `torchvision` gives the names that `torchvision.models.feature_extraction` gives: it takes any trailing
  `_<digits>`
  for a repeat, also where a module is really called that, so that in its vision transformers `ln_1` is the
  second norm.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Reading = Literal["exact", "torchvision"]

_SUFFIX = re.compile(r"(.+)_([0-9]+)")


@dataclass(frozen=True)
class Label:
    """Where a node comes from: the module that runs, and the operation ("": the module itself)."""

    scope: str
    operation: str = ""

    @property
    def path(self) -> str:
        return ".".join(part for part in (self.scope, self.operation) if part)


def operation_name(target: str | Callable[..., Any]) -> str:
    """The last part of a node's name: `relu` for `F.relu`, `getitem` for `__getitem__`, `a_b` for `a.b`."""
    name = target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)
    if name.startswith("__") and name.endswith("__"):
        name = name[2:-2]
    name = re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()
    name = re.sub(r"[^0-9a-zA-Z_]+", "_", name)
    return f"_{name}" if name[:1].isdigit() else name


def exact_names(labels: Iterable[Label], modules: Collection[str]) -> list[str]:
    """Names of `labels`, in order. The paths of `modules`, which ran, are kept for their own nodes."""
    taken: set[str] = set()
    repeats: defaultdict[str, int] = defaultdict(int)

    def name_of(label: Label) -> str:
        name = label.path
        while name in taken or (name in modules and (label.operation or name != label.scope)):
            repeats[label.path] += 1
            name = f"{label.path}_{repeats[label.path]}"
        taken.add(name)
        return name

    return [name_of(label) for label in labels]


def torchvision_names(labels: Iterable[Label], modules: Collection[str] = ()) -> list[str]:
    """Names of `labels` as torchvision gives them, bit for bit, in linear time."""
    latest: dict[str, int] = {}  # base name -> number of the latest name that reads as a repeat of it

    def name_of(label: Label) -> str:
        suffixed = _SUFFIX.fullmatch(label.path)
        base = suffixed[1] if suffixed else label.path
        name = f"{base}_{latest[base] + 1}" if base in latest else base
        latest[name] = 0
        if repeat := _SUFFIX.fullmatch(name):
            latest[repeat[1]] = int(repeat[2])
        return name

    return [name_of(label) for label in labels]


READINGS: Mapping[Reading, Callable[[Iterable[Label], Collection[str]], list[str]]] = {
    "exact": exact_names,
    "torchvision": torchvision_names,
}
