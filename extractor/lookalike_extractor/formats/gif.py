"""GIF: the logical screen descriptor."""

from __future__ import annotations

from .layout import Layout, unpack


def layout(data: bytes) -> Layout:
    width, height = unpack("<HH", data, 6)
    return Layout("GIF", width, height)
