"""JPEG: markers up to the first frame header (ITU-T T.81, annex B), with the EXIF orientation on the way."""

from __future__ import annotations

from lookalike_extractor.errors import ImageCorrupt, ImageError, ImageFormatUnsupported, ImageTruncated

from .layout import Layout, unpack
from .tiff import exif_orientation

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_END, _SCAN, _APP0, _APP1, _APP14 = 0xD9, 0xDA, 0xE0, 0xE1, 0xEE
_HUFFMAN = frozenset({0xC0, 0xC1, 0xC2})
_MAX_SEGMENTS = 4096


def layout(data: bytes) -> Layout:
    orientation, at = 1, 2
    for _ in range(_MAX_SEGMENTS):
        marker, at = _next_marker(data, at)
        if marker in _BARE:
            continue
        if marker in (_END, _SCAN):
            raise ImageCorrupt("the JPEG has no frame header before its pixels")
        (length,) = unpack(">H", data, at)
        if length < 2:
            raise ImageCorrupt(f"a JPEG segment claims {length} bytes")
        if marker in _FRAMES:
            return _frame(data, at, orientation)
        if marker == _APP1 and data[at + 2 : at + 8] == b"Exif\0\0":
            orientation = exif_orientation(data[at + 8 : at + length])
        at += length
    raise ImageCorrupt(f"the JPEG has more than {_MAX_SEGMENTS} segments before its frame header")


def is_ordinary(data: bytes) -> bool:
    """Whether all decoders should take the file for the same picture: grey or YCbCr, in Huffman codes.

    What three components mean no decoder is told; libjpeg guesses by markers and ids (jdapimin.c), and others
    may guess otherwise wherever that is not YCbCr. A file that does not end with its end marker, because it
    is cut or because more follows, is not ordinary either.
    """
    try:
        return data.endswith(b"\xff\xd9") and _says_ordinary(data)
    except ImageError:
        return False


def _says_ordinary(data: bytes) -> bool:
    jfif, transform, frame, ids, at = False, b"", 0, b"", 2
    for _ in range(_MAX_SEGMENTS):
        marker, at = _next_marker(data, at)
        if marker in _BARE:
            continue
        if marker in (_END, _SCAN):
            break
        (length,) = unpack(">H", data, at)
        if marker in _FRAMES:
            frame, ids = marker, data[at + 8 : at + length : 3]
        elif marker == _APP0 and data[at + 2 : at + 7] == b"JFIF\0":
            jfif = True
        elif marker == _APP14 and data[at + 2 : at + 7] == b"Adobe":
            transform = data[at + 13 : at + 14]
        at += length
    ycbcr = transform == b"\1" or (not transform and (jfif or ids == b"\1\2\3"))
    return frame in _HUFFMAN and (len(ids) == 1 or (len(ids) == 3 and ycbcr))


def _next_marker(data: bytes, at: int) -> tuple[int, int]:
    """The next marker's code and the place after it; markers may be preceded by any number of 0xFF."""
    at = data.find(b"\xff", at)
    while 0 <= at < len(data) and data[at] == 0xFF:
        at += 1
    if not 0 <= at < len(data):
        raise ImageTruncated(f"the JPEG ends after {len(data)} bytes, within its header")
    return data[at], at + 1


def _frame(data: bytes, at: int, orientation: int) -> Layout:
    _, precision, height, width, channels = unpack(">HBHHB", data, at)
    if precision != 8:
        raise ImageFormatUnsupported(f"the JPEG has {precision} bits per sample; save it with 8")
    if channels not in (1, 3, 4):
        raise ImageFormatUnsupported(f"the JPEG has {channels} channels; grey, colour and CMYK are read")
    return Layout("JPEG", width, height, orientation, channels)
