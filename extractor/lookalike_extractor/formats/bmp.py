"""BMP: the size in an OS/2 or a Windows header; a negative height means rows from the top."""

from __future__ import annotations

from lookalike_extractor.errors import ImageCorrupt

from .layout import Layout, unpack

_OS2_HEADER, _LEAST_WINDOWS_HEADER, _MOST_WINDOWS_HEADER = 12, 16, 124


def layout(data: bytes) -> Layout:
    (header,) = unpack("<I", data, 14)
    if header == _OS2_HEADER:
        width, height = unpack("<HH", data, 18)
    elif _LEAST_WINDOWS_HEADER <= header <= _MOST_WINDOWS_HEADER:
        width, height = unpack("<ii", data, 18)
    else:
        raise ImageCorrupt(f"the BMP header claims {header} bytes")
    return Layout("BMP", width, abs(height))
