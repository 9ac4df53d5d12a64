"""The suites: which copies are made of which photos. Any folder of distinct photos will do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from lookalike_extractor.copies import Edit
from lookalike_extractor.edits import (
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
)
from PIL import Image

V1: Mapping[str, Edit] = {
    "crop 50 %": lambda image, rng, _: crop(image, 0.50, rng),
    "crop 25 %": lambda image, rng, _: crop(image, 0.25, rng),
    "downscale to 64 px": lambda image, rng, _: downscale(image, 64),
    "JPEG q10": lambda image, rng, _: jpeg(image, 10),
    "blur": lambda image, rng, _: blur(image, 0.01),
    "rotate 10": lambda image, rng, _: rotate(image, 10),
    "rotate 90": lambda image, rng, _: rotate(image, 90),
    "flip": lambda image, rng, _: flip(image),
    "grey": lambda image, rng, _: grey(image),
    "colour jitter": lambda image, rng, _: jitter(image, 0.4, rng),
    "caption bar": lambda image, rng, _: caption(image, 0.2, rng),
    "text and emoji": lambda image, rng, _: overlay(image, 2, rng),
    "phone screenshot": lambda image, rng, _: screenshot(image, rng),
    "composite at 60 %": lambda image, rng, other: composite(image, other, 0.60, rng),
}
"""Easy: 14 single edits."""


def _overlaid_crop(image: Image.Image, rng: np.random.Generator, _: Image.Image) -> Image.Image:
    return jpeg(overlay(crop(image, 0.30, rng), 2, rng), 10)


def _turned_and_small(image: Image.Image, rng: np.random.Generator, _: Image.Image) -> Image.Image:
    return downscale(jitter(rotate(flip(image), 90), 0.4, rng), 64)


def _shot_of_a_crop(image: Image.Image, rng: np.random.Generator, _: Image.Image) -> Image.Image:
    return jpeg(screenshot(crop(image, 0.50, rng), rng), 10)


def _grey_composite(image: Image.Image, rng: np.random.Generator, other: Image.Image) -> Image.Image:
    return blur(grey(composite(image, other, 0.50, rng)), 0.01)


def _seen_from_aside(image: Image.Image, rng: np.random.Generator, _: Image.Image) -> Image.Image:
    return blur(overlay(perspective(image, 0.2, rng), 2, rng), 0.01)


V2: Mapping[str, Edit] = {
    "crop 12 %": lambda image, rng, _: crop(image, 0.12, rng),
    "composite at 35 %": lambda image, rng, other: composite(image, other, 0.35, rng),
    "rotate 45 + crop 60 %": lambda image, rng, _: crop(rotate(image, 45), 0.60, rng),
    "crop 30 % + overlay + JPEG 10": _overlaid_crop,
    "flip + rotate 90 + jitter + 64 px": _turned_and_small,
    "screenshot of a crop + JPEG 10": _shot_of_a_crop,
    "composite 50 % + grey + blur": _grey_composite,
    "perspective + overlay + blur": _seen_from_aside,
}
"""Hard: 8 chains."""

SUITES: Mapping[str, Mapping[str, Edit]] = {"v1": V1, "v2": V2}


@dataclass(frozen=True)
class Split:
    """Disjoint photos of one seed.

    Attributes:
        fit: whitening is fitted on these and copies of them.
        background: the photos of score normalisation.
        calibration: thresholds are set with copies of these.
        originals: the gallery has these; their copies are the queries.
        distractors: the gallery has these too; nothing is a copy of them.
        strangers: their copies are queries that have no match; composites are pasted into them.
    """

    fit: list[Path]
    background: list[Path]
    calibration: list[Path]
    originals: list[Path]
    distractors: list[Path]
    strangers: list[Path]


SHARES = {
    "originals": 0.08,
    "strangers": 0.03,
    "calibration": 0.08,
    "background": 0.10,
    "fit": 0.30,
    "distractors": 0.40,
}


def split(photos: list[Path], seed: int) -> Split:
    """Deals out photos by SHARES, in an order that depends on the seed alone."""
    shuffled = list(np.random.default_rng(seed).permutation(np.array(sorted(photos), dtype=object)))
    hand = partial(_take, shuffled, len(photos))
    return Split(**{name: hand(share) for name, share in SHARES.items()})


def _take(rest: list[Path], total: int, share: float) -> list[Path]:
    count = max(1, round(share * total))
    taken, rest[:count] = rest[:count], []
    return taken
