"""What an image file's first bytes tell, read without a decoder and without memory for pixels.

Each module holds one format under one contract: `layout(data)` returns a Layout or raises an ImageError.
PNG and TIFF also offer `strip(data)`: the same picture without the parts that are no pixels, because text,
profiles and camera notes are where decoders spend memory, print warnings and fail.
"""

from __future__ import annotations

from collections.abc import Callable

from lookalike_extractor.errors import ImageFormatUnsupported

from . import bmp, gif, jpeg, png, tiff, webp
from .layout import Layout

_READERS: tuple[tuple[bytes, Callable[[bytes], Layout]], ...] = (
    (b"\xff\xd8\xff", jpeg.layout),
    (b"\x89PNG\r\n\x1a\n", png.layout),
    (b"GIF87a", gif.layout),
    (b"GIF89a", gif.layout),
    (b"BM", bmp.layout),
    (b"II*\0", tiff.layout),
    (b"MM\0*", tiff.layout),
    (b"II+\0", tiff.layout),
    (b"MM\0+", tiff.layout),
)

_KNOWN_STRANGERS: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyp", "a video or HEIF file"),
    (4, b"jP  \r\n", "JPEG 2000"),
    (4, b"JXL \r\n", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\1\0", "an icon"),
    (0, b"<svg", "SVG"),
    (0, b"PK\3\4", "a ZIP archive"),
)


def read_layout(data: bytes) -> Layout:
    """Reads size, orientation and sample layout from a whole file's header.

    Raises:
        ImageFormatUnsupported: the bytes are no JPEG, PNG, WebP, GIF, BMP or TIFF.
        ImageTruncated: the header is cut off.
        ImageCorrupt: the header contradicts itself.
    """
    for magic, read in _READERS:
        if data.startswith(magic):
            return read(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return webp.layout(data)
    raise ImageFormatUnsupported(f"{_stranger(data)}; send JPEG, PNG, WebP, GIF, BMP or TIFF")


def _stranger(data: bytes) -> str:
    for at, magic, name in _KNOWN_STRANGERS:
        if data[at : at + len(magic)] == magic:
            return f"the file is {name}, which is not read"
    return f"the file begins with {bytes(data[:8])!r}, which is no known image format"


__all__ = ["Layout", "read_layout"]
