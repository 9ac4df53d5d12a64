"""How a backbone wants its images, and upright pixels made so.

All of it is part of the embedding space. `images.decode` does the same from the bytes of a file, and reads no
more of a large JPEG than is wanted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from .errors import ImageCorrupt, RecipeInvalid

Pixels = NDArray[np.uint8]
"""[height, width, 3], RGB, upright."""

RESIZES = ("squash", "crop")


class Aligner(Protocol):
    """Cuts what is to be described out of a picture (faces.FaceAligner)."""

    def __call__(self, pixels: Pixels, height: int, width: int) -> Pixels:
        """uint8 [h, w, 3] RGB upright -> uint8 [height, width, 3]. Raises ImageError when there is none."""

    def identity(self) -> Mapping[str, Any]:
        """What shapes its answers, for the hash of an embedding space."""


@dataclass(frozen=True)
class Preprocessing:
    """How a backbone wants its images.

    Attributes:
        height, width: of the backbone's input, in pixels.
        resize: "squash" keeps the whole picture and lets its aspect ratio go; "crop" keeps the aspect ratio
            and takes the middle.
        mean, std: of each channel, R G B, in units where white is 1.
        crop: share of the short side that "crop" keeps.
        interpolation: "bilinear" or "bicubic", always antialiased.
        jpeg_margin: a JPEG is decoded at 1/2, 1/4 or 1/8 as long as both sides stay at least this many times
            the target. At 2, descriptors move less than by one more encoding at quality 75.
        align: what cuts out of the picture, in its full size, that which is described; None takes it whole.
    """

    height: int
    width: int
    resize: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: float = 0.875
    interpolation: str = "bilinear"
    jpeg_margin: float = 2.0
    align: Aligner | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not (1 <= self.height <= 4096 and 1 <= self.width <= 4096):
            raise RecipeInvalid(f"the input size {self.height} x {self.width} is outside 1..4096")
        if self.resize not in RESIZES:
            raise RecipeInvalid(f"resize is {self.resize!r}; it must be 'squash' or 'crop'")
        if not 0 < self.crop <= 1:
            raise RecipeInvalid(f"crop is {self.crop}; it must be over 0 and at most 1")
        if min(self.std) <= 0:
            raise RecipeInvalid(f"std is {self.std}; every channel's must be over 0")

    def identity(self) -> Mapping[str, Any]:
        """Everything here that shapes pixels, for the hash of an embedding space."""
        own = asdict(self.unaligned())
        del own["align"]
        aligned = {"align": dict(self.align.identity())} if self.align else {}
        return own | {"antialias": True, "background": "white", "jpeg_scales": [1, 2, 4, 8]} | aligned

    def unaligned(self) -> Preprocessing:
        """The same for pictures in which nothing is looked for."""
        return replace(self, align=None)


def fit(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Crops or squashes upright pixels, uint8 [h, w, 3] RGB, to the backbone's input size."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ImageCorrupt(
            f"pixels are {pixels.dtype} {list(pixels.shape)}; they must be uint8 [height, width, 3]"
        )
    if preprocessing.align is not None:
        return preprocessing.align(pixels, preprocessing.height, preprocessing.width)
    height, width = region(pixels.shape[0], pixels.shape[1], preprocessing)
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    kept = pixels[top : top + height, left : left + width]
    size = (preprocessing.height, preprocessing.width)
    if kept.shape[:2] == size:
        return np.ascontiguousarray(kept)
    # A tensor must be writable. In this order of its bytes torch resizes in half the time, with the same
    # bits, and what comes out needs no threads of torch's to be laid in order again.
    kept = np.require(kept, requirements=["C", "W"]).reshape(1, height, width, 3)
    planes = torch.from_numpy(kept.transpose(0, 3, 1, 2))
    resized = F.interpolate(planes, size, mode=preprocessing.interpolation, antialias=True)
    return np.ascontiguousarray(resized.numpy()[0].transpose(1, 2, 0))


def region(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width of the middle part of an upright picture that is resized to the input size."""
    if preprocessing.resize == "squash":
        return height, width
    aspect = preprocessing.width / preprocessing.height
    kept_height = min(height, width / aspect) * preprocessing.crop
    return max(1, round(kept_height)), max(1, min(width, round(kept_height * aspect)))
