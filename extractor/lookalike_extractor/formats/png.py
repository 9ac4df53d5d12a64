"""PNG (ISO/IEC 15948): the header chunk, and the orientation of an eXIf chunk before the pixels."""

from __future__ import annotations

from collections.abc import Iterator

from lookalike_extractor.errors import ImageCorrupt, ImageTruncated

from .layout import Layout, unpack
from .tiff import exif_orientation

_SIGNATURE = 8
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT"})
_END = b"\0\0\0\0IEND\xaeB`\x82"
_MAX_CHUNKS = 65_536


def layout(data: bytes) -> Layout:
    length, name, width, height = _header(data)
    if name != int.from_bytes(b"IHDR") or length != 13:
        raise ImageCorrupt("the PNG does not begin with its header chunk")
    return Layout("PNG", width, height, _orientation(data))


def strip(data: bytes) -> bytes:
    """The same picture with only the chunks that describe its pixels: no text, no profile, no animation.

    Raises:
        ImageTruncated: the file ends within a chunk or before the last one.
    """
    parts = [data[:_SIGNATURE]]
    for name, start, end in _chunks(data):
        if name == b"IEND":
            return b"".join([*parts, _END])
        if name in _PIXEL_CHUNKS:
            parts.append(data[start:end])
    raise ImageTruncated(f"the PNG ends after {len(data)} bytes, before its last chunk")


def _header(data: bytes) -> tuple[int, ...]:
    return unpack(">IIII", data, _SIGNATURE)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end (length field to checksum) of each chunk that is wholly there."""
    at = _SIGNATURE
    for _ in range(_MAX_CHUNKS):
        if at >= len(data):
            return
        (length,) = unpack(">I", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ImageTruncated(f"the PNG ends after {len(data)} bytes, within a chunk")
        yield data[at + 4 : at + 8], at, end
        at = end
    raise ImageCorrupt(f"the PNG has more than {_MAX_CHUNKS} chunks")


def _orientation(data: bytes) -> int:
    for name, start, end in _chunks(data):
        if name == b"eXIf":
            return exif_orientation(data[start + 8 : end - 4])
        if name == b"IDAT":
            break
    return 1
