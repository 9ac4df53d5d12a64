"""Views of a query: the whole picture and parts of it, so that a photo pasted into another is seen from near.

Each view is described and searched by itself; a hit's similarity is the largest over the views. Every further
view finds further accidental matches, so that of a part counts PART_HANDICAP less.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from .edits import LONGEST_SIDE
from .images import ImageLimits, decode, sniff
from .preprocessing import Pixels, Preprocessing
from .rectangles import find_rectangles

_LIMITS = ImageLimits()

MOST_PASTED = 2
PART_HANDICAP = 0.03


def picture(data: bytes, limits: ImageLimits = _LIMITS) -> Pixels:
    """An image file, upright, RGB, with at most LONGEST_SIDE pixels a side: uint8 [h, w, 3].

    Raises ImageError.
    """
    header = sniff(data, limits)
    factor = min(1.0, LONGEST_SIDE / max(header.width, header.height))
    height, width = max(1, round(header.height * factor)), max(1, round(header.width * factor))
    return decode(data, Preprocessing(height, width, "squash", (0.5,) * 3, (0.5,) * 3), limits)


def views(pixels: Pixels, grid: int = 3) -> list[Pixels]:
    """The whole and grid x grid parts, each half as wide and half as high, evenly spread.

    Args:
        pixels: uint8 [h, w, 3].
        grid: 0 gives the whole only; 3 gives 10 views, neighbours overlapping by half.
    """
    height, width = pixels.shape[:2]
    part_height, part_width = max(1, height // 2), max(1, width // 2)
    tops = np.linspace(0, height - part_height, grid).astype(int)
    lefts = np.linspace(0, width - part_width, grid).astype(int)
    return [pixels] + [
        pixels[top : top + part_height, left : left + part_width] for top, left in product(tops, lefts)
    ]


def pasted_views(pixels: Pixels, most: int = MOST_PASTED) -> list[Pixels]:
    """The whole and up to `most` rectangles in it that another picture may fill.

    Args:
        pixels: uint8 [h, w, 3].
    """
    return [pixels, *(rectangle.cut(pixels) for rectangle in find_rectangles(pixels, most))]
