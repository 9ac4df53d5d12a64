"""Copies of a photo as people make them: cropped, recompressed, turned, written on, pasted into others.

FAMILIES are the edits with strengths drawn at random; `random_copy` chains some. What is random comes from a
generator that the caller seeds, so the same seed gives the same copy. They serve to fit whitening, to
calibrate thresholds and to measure, where no labelled copies are at hand.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from .edits import (
    blur,
    caption,
    composite,
    crop,
    downscale,
    flip,
    grey,
    jitter,
    jpeg,
    overlay,
    perspective,
    rotate,
    screenshot,
    workable,
)
from .errors import RecipeInvalid, did_you_mean

Edit = Callable[[Image.Image, np.random.Generator, Image.Image], Image.Image]
"""(the photo, the source of chance, another photo to paste into or from) -> a copy. All RGB."""


def seeded(seed: int, *key: str | int) -> np.random.Generator:
    """A generator that depends on the seed and the key alone, not on what was drawn before."""
    return np.random.default_rng([seed, *(zlib.crc32(str(part).encode()) for part in key)])


FAMILIES: Mapping[str, Edit] = {
    "crop": lambda image, rng, _: crop(image, rng.uniform(0.12, 0.8), rng),
    "perspective": lambda image, rng, _: perspective(image, rng.uniform(0.05, 0.25), rng),
    "rotate": lambda image, rng, _: rotate(image, float(rng.choice([90, 180, 270, rng.uniform(-45, 45)]))),
    "flip": lambda image, rng, _: flip(image),
    "jitter": lambda image, rng, _: jitter(image, 0.4, rng),
    "grey": lambda image, rng, _: grey(image),
    "overlay": lambda image, rng, _: overlay(image, int(rng.integers(1, 4)), rng),
    "caption": lambda image, rng, _: caption(image, rng.uniform(0.1, 0.3), rng),
    "composite": lambda image, rng, other: composite(image, other, rng.uniform(0.35, 0.8), rng),
    "screenshot": lambda image, rng, _: screenshot(image, rng),
    "blur": lambda image, rng, _: blur(image, rng.uniform(0.005, 0.02)),
    "downscale": lambda image, rng, _: downscale(image, int(rng.integers(48, 160))),
    "jpeg": lambda image, rng, _: jpeg(image, int(rng.integers(8, 40))),
}
"""Edits with strengths drawn at random, in the order in which a picture meets them on its way."""


def random_copy(
    image: Image.Image,
    rng: np.random.Generator,
    other: Image.Image,
    families: Sequence[str] | None = None,
    most: int = 3,
    edits: Mapping[str, Edit] = FAMILIES,
) -> Image.Image:
    """One copy: one to `most` different families, one after the other in the order of `edits`.

    Args:
        other: what composites paste into; a photo that is no copy of `image`.
        families: names in `edits`; None means all.
        edits: FAMILIES, or unseen.UNSEEN.

    Raises:
        RecipeInvalid: an unknown family, with the nearest names, or none at all.
    """
    families = tuple(edits) if families is None else families
    check_families(families, edits)
    steps = int(rng.integers(1, min(most, len(families)) + 1))
    chosen = set(rng.choice(list(families), size=steps, replace=False).tolist())
    image, other = workable(image), workable(other)
    for name in edits:
        if name in chosen:
            image = edits[name](image, rng, other)
    return image


def check_families(families: Sequence[str], edits: Mapping[str, Edit] = FAMILIES) -> None:
    """Raises RecipeInvalid unless all are names in `edits` and there is at least one."""
    known = ", ".join(edits)
    if not families:
        raise RecipeInvalid(f"no family of edits was given; choose some of {known}")
    for name in families:
        if name not in edits:
            raise RecipeInvalid(
                f"there is no family of edits {name!r}; there are {known}.{did_you_mean(name, edits)}"
            )
