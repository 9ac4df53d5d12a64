"""TIFF 6.0 and BigTIFF: the first image file directory; EXIF blocks are TIFF directories too."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lookalike_extractor.errors import ImageCorrupt, ImageError

from .layout import Layout, unpack

_WIDTH, _HEIGHT, _ORIENTATION = 256, 257, 274
_SCALARS = frozenset({256, 257, 259, 262, 266, 277, 278, 284, 317, 322, 323})
_ARRAYS = frozenset({258, 273, 279, 292, 301, 320, 324, 325, 338, 339, 347, 529, 530, 531, 532})
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


@dataclass(frozen=True)
class _Entry:
    """One tag. `place` is where the value lies, or where its offset is followed to."""

    tag: int
    kind: int
    count: int
    place: int
    raw: bytes

    @property
    def size(self) -> int:
        return self.count * _SIZES.get(self.kind, 1)


def layout(data: bytes) -> Layout:
    order, entries = _directory(data)
    values = {entry.tag: _integer(data, order, entry) for entry in entries if entry.tag in (_WIDTH, _HEIGHT)}
    if len(values) < 2:
        raise ImageCorrupt("the TIFF does not tell its width and height")
    return Layout("TIFF", values[_WIDTH], values[_HEIGHT], _orientation(data, order, entries))


def exif_orientation(block: bytes) -> int:
    """The orientation an EXIF block tells, 1..8; 1 when the block is damaged or tells none."""
    try:
        return _orientation(block, *_directory(block))
    except ImageError:
        return 1


def strip(data: bytes) -> bytes:
    """The same first picture with a directory that holds only what describes its pixels.

    Raises:
        ImageCorrupt: a tag lies outside the file, or holds many values where one belongs.
    """
    order, entries = _directory(data)
    kept = [entry for entry in entries if entry.tag in _SCALARS | _ARRAYS]
    for entry in kept:
        if entry.tag in _SCALARS and entry.count != 1:
            raise ImageCorrupt(f"TIFF tag {entry.tag} holds {entry.count} values instead of one")
        if entry.place + entry.size > len(data):
            raise ImageCorrupt(f"TIFF tag {entry.tag} lies beyond the end of the file")
    big = _is_big(data, order)
    head = data[:8] if big else data[:4]
    pointer, number = ("Q", "Q") if big else ("I", "H")
    at = len(data) + len(data) % 2  # a directory begins on an even byte
    body = data[len(head) + struct.calcsize(pointer) :] + b"\0" * (len(data) % 2)
    directory = struct.pack(order + number, len(kept)) + b"".join(entry.raw for entry in kept)
    return head + struct.pack(order + pointer, at) + body + directory + struct.pack(order + pointer, 0)


def _directory(data: bytes) -> tuple[str, list[_Entry]]:
    """Byte order and entries of the first directory."""
    if data[:2] not in (b"II", b"MM"):
        raise ImageCorrupt("a TIFF directory begins with neither II nor MM")
    order = "<" if data[:2] == b"II" else ">"
    big = _is_big(data, order)
    (at,) = unpack(order + ("Q" if big else "I"), data, 8 if big else 4)
    (number,) = unpack(order + ("Q" if big else "H"), data, at if at < len(data) else len(data))
    if number > 4096:
        raise ImageCorrupt(f"a TIFF directory claims {number} entries")
    first, step = (at + 8, 20) if big else (at + 2, 12)
    return order, [_entry(data, order, first + i * step, big) for i in range(number)]


def _is_big(data: bytes, order: str) -> bool:
    return unpack(order + "H", data, 2) == (43,)


def _entry(data: bytes, order: str, at: int, big: bool) -> _Entry:
    tag, kind, count, offset = unpack(order + ("HHQQ" if big else "HHII"), data, at)
    inline = count * _SIZES.get(kind, 1) <= (8 if big else 4)
    place = at + (12 if big else 8) if inline else offset
    return _Entry(tag, kind, count, place, data[at : at + (20 if big else 12)])


def _integer(data: bytes, order: str, entry: _Entry) -> int:
    if entry.kind not in _INTEGERS or entry.count != 1:
        raise ImageCorrupt(f"TIFF tag {entry.tag} is not one whole number")
    return unpack(order + _INTEGERS[entry.kind], data, entry.place)[0]


def _orientation(data: bytes, order: str, entries: list[_Entry]) -> int:
    for entry in entries:
        if entry.tag == _ORIENTATION and entry.kind in _INTEGERS and entry.count == 1:
            value = _integer(data, order, entry)
            return value if 1 <= value <= 8 else 1
    return 1
