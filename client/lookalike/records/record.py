"""What every record has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

Attributes = Mapping[str, Any]


class Record:
    """A short repr: floats with four digits, arrays as `float32[1280]`, empty fields left out."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = ((f.name, getattr(self, f.name)) for f in fields(self) if f.repr)  # type: ignore[arg-type]
        parts = [f"{name}={_short(value)}" for name, value in shown if not _is_empty(value)]
        return f"{type(self).__name__}({', '.join(parts)})"


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str | bytes | tuple | Mapping) and not value)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, bytes):
        return f"{value.hex()[:12]}…"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    return repr(value)
