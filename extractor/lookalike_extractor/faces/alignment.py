"""A face turned upright and brought to one size by its landmarks: worth more than the network behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike_extractor.errors import NoFace

from . import detection
from .networks import Detector

REFERENCE = np.array(
    [
        [0.225492, 0.215990],
        [0.754762, 0.215990],
        [0.490127, 0.515625],
        [0.254149, 0.780233],
        [0.726104, 0.780233],
    ]
)
"""(x, y) of the five landmarks in the mean face of dlib, [5, 2], in sides of the face.

Source: the mean shape in dlib's get_face_chip_details (Boost licence), the six points of each eye averaged.
"""
PADDING = 0.25
"""Around the mean face, in sides of it: what dlib's network was trained with."""


class FaceAligner:
    """Cuts the largest face out of a picture.

    Args:
        detector: in eval mode, on the CPU.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def identity(self) -> Mapping[str, Any]:
        """What shapes its answers, besides the detector's weights."""
        return {**detection.identity(), "reference": REFERENCE.tolist(), "padding": PADDING}

    def __call__(self, pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
        """Returns the largest face, uint8 [height, width, 3], of a picture uint8 [h, w, 3]. Raises NoFace."""
        faces = detection.find_faces(self._detector, pixels)
        if not faces:
            raise NoFace(
                "no face was found in the picture; it must be upright, at least "
                f"{detection.SMALLEST_FACE} pixels wide and a sixteenth of the longer side"
            )
        largest = max(faces, key=lambda face: face.area)
        return aligned(pixels, largest.landmarks, height, width)


def aligned(
    pixels: NDArray[np.uint8], landmarks: NDArray[np.floating], height: int, width: int
) -> NDArray[np.uint8]:
    """Brings landmarks [5, 2] of a picture to the reference in one of [height, width, 3]; outside is black.

    Raises NoFace when the landmarks are no shape that can be turned.
    """
    place = (REFERENCE + PADDING) / (1 + 2 * PADDING) * (width, height)
    turn, shift = similarity(place, np.asarray(landmarks, float))
    if not (np.isfinite([turn, shift]).all() and 1e-3 < abs(turn) < 1e3):
        raise NoFace("a face was found, but not how it is turned")
    return _turned(pixels, turn, shift, height, width)


def _turned(
    pixels: NDArray[np.uint8], turn: complex, shift: complex, height: int, width: int
) -> NDArray[np.uint8]:
    """[height, width, 3], whose point z shows the point turn * z + shift of the picture."""
    corners = turn * np.array([0, width, 1j * height, width + 1j * height]) + shift
    left, top = max(0, math.floor(corners.real.min())), max(0, math.floor(corners.imag.min()))
    right = min(pixels.shape[1], math.ceil(corners.real.max()))
    bottom = min(pixels.shape[0], math.ceil(corners.imag.max()))
    if left >= right or top >= bottom:
        raise NoFace("a face was found, but outside the picture")
    # What will be smaller is made so first, as a whole: sampling it at points would skip pixels.
    shrink = max(1.0, abs(turn))
    size = max(1, round((right - left) / shrink)), max(1, round((bottom - top) / shrink))
    region = Image.fromarray(pixels[top:bottom, left:right]).resize(size, Image.Resampling.BILINEAR)
    across, down = size[0] / (right - left), size[1] / (bottom - top)
    coefficients = (
        *(turn.real * across, -turn.imag * across, (shift.real - left) * across),
        *(turn.imag * down, turn.real * down, (shift.imag - top) * down),
    )
    face = region.transform((width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return np.array(face)


def similarity(source: NDArray[np.floating], target: NDArray[np.floating]) -> tuple[complex, complex]:
    """The turn, scale and shift that bring points [n, 2] nearest to others, in least squares.

    Returns (a, b): with points as complex numbers x + iy, target = a * source + b. Mirroring is left out.
    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991,
    which in the plane is one complex quotient.
    """
    z, w = (points[:, 0] + 1j * points[:, 1] for points in (source, target))
    centred = z - z.mean()
    a = np.vdot(centred, w - w.mean()) / np.vdot(centred, centred).real
    return complex(a), complex(w.mean() - a * z.mean())
