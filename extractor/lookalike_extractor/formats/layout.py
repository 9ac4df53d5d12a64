"""What every format's header is read into."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lookalike_extractor.errors import ImageCorrupt, ImageTruncated

TRANSPOSED = frozenset({5, 6, 7, 8})
"""The EXIF orientations that swap width and height."""


@dataclass(frozen=True)
class Layout:
    """A picture as the file stores it, before its orientation is applied."""

    format: str
    width: int
    height: int
    orientation: int = 1
    """EXIF orientation, 1..8; 1 is upright."""
    channels: int = 0
    """Components of a JPEG: 1 grey, 3 colour, 4 CMYK; 0 for other formats."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ImageCorrupt(
                f"the {self.format} header gives a size of {self.width} x {self.height} pixels"
            )

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) once the orientation is applied."""
        return (self.height, self.width) if self.orientation in TRANSPOSED else (self.width, self.height)


def unpack(fmt: str, data: bytes, at: int) -> tuple[int, ...]:
    """`struct.unpack_from` of integers, with the answer a short file deserves."""
    try:
        return struct.unpack_from(fmt, data, at)
    except struct.error:
        raise ImageTruncated(f"the file ends after {len(data)} bytes, within its header") from None
