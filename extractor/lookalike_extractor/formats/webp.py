"""WebP: the first RIFF chunk (VP8, VP8L or VP8X), and the orientation of an EXIF chunk."""

from __future__ import annotations

from lookalike_extractor.errors import ImageCorrupt, ImageTruncated

from .layout import Layout, unpack
from .tiff import exif_orientation

_HAS_EXIF = 0x08
_MAX_CHUNKS = 65_536


def layout(data: bytes) -> Layout:
    (size,) = unpack("<I", data, 4)
    if size + 8 > len(data):
        raise ImageTruncated(f"the WebP ends after {len(data)} of {size + 8} bytes")
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in unpack("<HH", data, 26))
        return Layout("WEBP", width, height)
    if kind == b"VP8L":
        (bits,) = unpack("<I", data, 21)
        return Layout("WEBP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X":
        flags, width_low, width_high, height_low, height_high = unpack("<B3xHBHB", data, 20)
        width, height = (width_high << 16 | width_low) + 1, (height_high << 16 | height_low) + 1
        return Layout("WEBP", width, height, _orientation(data) if flags & _HAS_EXIF else 1)
    raise ImageCorrupt(f"the WebP begins with an unknown chunk {kind!r}")


def _orientation(data: bytes) -> int:
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            return 1
        (length,) = unpack("<I", data, at + 4)
        if data[at : at + 4] == b"EXIF":
            return exif_orientation(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2
    return 1
