"""Finds rectangles that another picture may fill: a photo pasted into a photo, shown in a screenshot, framed.

What is pasted has straight, upright edges. Columns and rows with the longest runs of strong differences are
taken for its possible sides, and every rectangle of two columns and two rows is judged by how much of its
four sides is such an edge; the weakest side counts most, since nature has lines but seldom four that close.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
_Doubles = NDArray[np.float64]
_Indices = NDArray[np.intp]

_SIDE = 128  # pixels of the longer side of the picture that is looked at
_LINES = 24  # columns, and rows, that may be sides
_STRONG = 16.0  # a difference of neighbours, of 255, that is surely an edge
_EXPECTED = 0.25  # strength of a run of pixels that is no line
_BORDER = 0.35  # strength of the picture's own border: what is pasted may be cut off by it
_LEAST, _MOST = 0.2, 0.9  # of the picture's sides, and of its area
_APART = 0.6  # of two rectangles with a larger overlap only the better one is kept
_LOOKED_AT = 2000


@dataclass(frozen=True)
class Rectangle:
    """Left, top, right and bottom in 0..1 of width and height."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Rectangle) -> float:
        """Intersection over union."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        both = max(0.0, width) * max(0.0, height)
        return both / (self.area + other.area - both)

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)

    def cut(self, pixels: Pixels) -> Pixels:
        """The part of uint8 [h, w, 3] inside."""
        height, width = pixels.shape[:2]
        top, left = int(self.top * height), int(self.left * width)
        return pixels[
            top : max(top + 1, round(self.bottom * height)), left : max(left + 1, round(self.right * width))
        ]


def find_rectangles(pixels: Pixels, most: int = 4) -> list[Rectangle]:
    """The likeliest rectangles, the best first; about 20 ms.

    Args:
        pixels: uint8 [h, w, 3].
        most: fewer are returned where there are fewer lines.
    """
    small = _shrunk(pixels)
    height, width = small.shape[:2]
    beside, below = _edges(small), _edges(small.swapaxes(0, 1))
    columns, rows = _lines(beside), _lines(below)
    xs, left, right = _pairs(columns, width)
    ys, top, bottom = _pairs(rows, height)
    tall, wide = (ys[bottom] - ys[top])[None], (xs[right] - xs[left])[:, None]
    upright, level = _sums(beside, columns), _sums(below, rows)
    sides = (
        (upright[ys[bottom]][:, left] - upright[ys[top]][:, left]).T / tall,
        (upright[ys[bottom]][:, right] - upright[ys[top]][:, right]).T / tall,
        (level[xs[right]][:, top] - level[xs[left]][:, top]) / wide,
        (level[xs[right]][:, bottom] - level[xs[left]][:, bottom]) / wide,
    )
    weakest = np.minimum(np.minimum(*sides[:2]), np.minimum(*sides[2:]))
    judged = np.where(tall * wide <= _MOST * height * width, weakest + sum(sides) / 4, -np.inf)
    found: list[Rectangle] = []
    for place in np.argsort(-judged, axis=None)[:_LOOKED_AT]:
        i, j = np.unravel_index(place, judged.shape)
        if len(found) == most or judged[i, j] == -np.inf:
            break
        across, down = xs[[left[i], right[i]]] / width, ys[[top[j], bottom[j]]] / height
        box = Rectangle(float(across[0]), float(down[0]), float(across[1]), float(down[1]))
        if all(box.overlap(other) < _APART for other in found):
            found.append(box)
    return found


def _shrunk(pixels: Pixels) -> NDArray[np.float32]:
    factor = _SIDE / max(pixels.shape[:2])
    size = (max(2, round(pixels.shape[1] * factor)), max(2, round(pixels.shape[0] * factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX), np.float32)


def _edges(pixels: NDArray[np.float32]) -> _Doubles:
    """How surely an edge lies between each pixel and the next in its row: [h, w, 3] -> [h, w - 1], 0..1."""
    steps = np.abs(np.diff(pixels, axis=1)).max(axis=2)
    beside = np.pad(steps, ((0, 0), (1, 1)))
    peak = (steps >= beside[:, :-2]) & (steps >= beside[:, 2:])
    edges = np.clip(steps / _STRONG, 0, 1) * peak
    beside = np.pad(edges, ((0, 0), (1, 1)))  # a line may waver by a pixel
    wavering: _Doubles = np.maximum(edges, 0.9 * np.maximum(beside[:, :-2], beside[:, 2:]))
    return wavering


def _lines(edges: _Doubles) -> _Indices:
    """The columns with the strongest runs from top to bottom, ascending, no two beside each other."""
    best, run = np.zeros(edges.shape[1]), np.zeros(edges.shape[1])
    for row in edges - _EXPECTED:
        run = np.maximum(0, run + row)
        best = np.maximum(best, run)
    chosen: list[int] = []
    for column in np.argsort(-best):
        if best[column] <= 0 or len(chosen) == _LINES:
            break
        if all(abs(column - other) > 1 for other in chosen):
            chosen.append(int(column))
    return np.array(sorted(chosen), np.intp)


def _pairs(lines: _Indices, length: int) -> tuple[_Indices, _Indices, _Indices]:
    """Places of lines and borders, and which of them are far enough apart to be two sides: [m], [p], [p]."""
    places = np.concatenate([[0], lines + 1, [length]])
    first, second = np.triu_indices(len(places), 1)
    far = places[second] - places[first] >= _LEAST * length
    return places, first[far], second[far]


def _sums(edges: _Doubles, lines: _Indices) -> _Doubles:
    """Sums of each line's strength, and the borders', down to each row: [h + 1, lines + 2]."""
    border = np.full((len(edges), 1), _BORDER)
    strengths = np.concatenate([border, edges[:, lines], border], axis=1)
    return np.concatenate([np.zeros((1, strengths.shape[1])), np.cumsum(strengths, axis=0)])
