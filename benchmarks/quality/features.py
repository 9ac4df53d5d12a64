"""Pooled features of photos, their copies and views, kept on disk: a forward pass is made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from pathlib import Path

import numpy as np
from lookalike_extractor.backbones import load_backbone
from lookalike_extractor.copies import random_copy, seeded
from lookalike_extractor.descriptor import DescriptorModel
from lookalike_extractor.fitting import pooled, read_photo
from lookalike_extractor.preprocessing import Pixels, fit
from lookalike_extractor.recipe import Recipe, Tap
from lookalike_extractor.unseen import UNSEEN
from lookalike_extractor.views import MOST_PASTED, pasted_views, views
from numpy.typing import NDArray
from PIL import Image
from suites import SUITES, Split

Floats = NDArray[np.float32]
Picture = Callable[[], Image.Image]
Views = Callable[[Pixels], list[Pixels]]

NODES = ("blocks.5.expand", "blocks.10.expand", "blocks.15.expand", "head")
POOLINGS = ("avg", "gem", "rgem", "rmac")
ALL = tuple(Tap(node, pooling) for node, pooling in product(NODES, POOLINGS))
VIEWED = (Tap("blocks.10.expand", "rgem"), Tap("blocks.15.expand", "rgem"))
FIT_COPIES, CALIBRATION_COPIES = 3, 4
CALIBRATED = ("letterbox", "gamma", "erase", "watermark", "sharpen", "noise", "pixelate")
"""Families of edits that thresholds are set with; no whitening is fitted with them."""
JUDGED = tuple(family for family in UNSEEN if family not in CALIBRATED)
"""Families that neither a whitening nor a threshold has seen."""
_CHANNELS = {"blocks.5.expand": 240, "blocks.10.expand": 672, "blocks.15.expand": 1152, "head": 1280}
_BATCH = 64


@dataclass(frozen=True)
class Features:
    """Rows of pictures, columns of taps.

    Attributes:
        rows: float16 [n, sum of the taps' channels], each tap's part scaled to length 10.
    """

    rows: NDArray[np.float16]
    taps: tuple[Tap, ...]

    def of(self, tap: Tap) -> Floats:
        """float32 [n, c], rows of length 1."""
        start = sum(_CHANNELS[other.node] for other in self.taps[: self.taps.index(tap)])
        part = np.asarray(self.rows[:, start : start + _CHANNELS[tap.node]], np.float32)
        return part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)


class Extractor:
    """Describes pictures by taps of EfficientNet-Lite0, and remembers what it did in a folder."""

    def __init__(self, cache: Path, taps: tuple[Tap, ...] = ALL, side: int = 224) -> None:
        recipe = Recipe("benchmark", "efficientnet_lite0", taps, input_size=(side, side), resize="squash")
        self.taps, self.cache = taps, cache
        self.model = DescriptorModel(load_backbone(recipe.backbone), [recipe])
        cache.mkdir(parents=True, exist_ok=True)

    def describe(
        self, name: str, pictures: Sequence[Picture], seen: Views = lambda whole: [whole]
    ) -> Features:
        """Features of all views of each picture in turn; of the whole alone unless told otherwise."""
        file = self.cache / f"{name}.npy"
        if not file.exists():
            parts = [self._rows(batch, seen) for batch in _batches(pictures)]
            np.save(file, np.concatenate(parts))
        return Features(np.load(file, mmap_mode="r"), self.taps)

    def _rows(self, pictures: Sequence[Picture], seen: Views) -> NDArray[np.float16]:
        def inputs(picture: Picture) -> list[Pixels]:
            return [fit(view, self.model.preprocessing) for view in seen(np.asarray(picture()))]

        with ThreadPoolExecutor(2) as pool:
            flat = [pixels for several in pool.map(inputs, pictures) for pixels in several]
        described = [pooled(self.model, flat[at : at + 16]) for at in range(0, len(flat), 16)]
        columns = [np.concatenate(part) for part in zip(*described, strict=True)]
        scaled = [10 * c / np.maximum(np.linalg.norm(c, axis=1, keepdims=True), 1e-12) for c in columns]
        return np.concatenate(scaled, axis=1).astype(np.float16)


def originals(photos: Sequence[Path]) -> list[Picture]:
    return [partial(read_photo, path) for path in photos]


def suite_copies(photos: Sequence[Path], canvases: Sequence[Path], suite: str, seed: int) -> list[Picture]:
    """Each edit of a suite, of each photo in turn."""

    def made(path: Path, name: str, canvas: Path) -> Image.Image:
        return SUITES[suite][name](read_photo(path), seeded(seed, str(path), name), read_photo(canvas))

    return [
        partial(made, path, name, _another(canvases, 7 * place + len(name), path))
        for place, path in enumerate(photos)
        for name in SUITES[suite]
    ]


def pasted(pixels: Pixels) -> list[Pixels]:
    """The views of pasted_views, the whole again where there are fewer."""
    seen = pasted_views(pixels)
    return seen + [pixels] * (1 + MOST_PASTED - len(seen))


VIEWS: dict[str, tuple[Views, int]] = {"three views": (pasted, 1 + MOST_PASTED), "ten views": (views, 10)}
"""Rectangles that may be pasted, or a grid; and how many views each picture has."""


def unseen_copies(photos: Sequence[Path], copies: int, families: Sequence[str], seed: int) -> list[Picture]:
    """`copies` random copies of each photo in turn, with edits of unseen.UNSEEN."""

    def made(path: Path, number: int) -> Image.Image:
        photo = read_photo(path)
        return random_copy(photo, seeded(seed, "unseen", str(path), number), photo, families, edits=UNSEEN)

    return [partial(made, path, number) for path in photos for number in range(copies)]


def describe_unseen(extractor: Extractor, split: Split, seed: int) -> dict[str, Features]:
    """Copies with edits that no whitening was fitted with, by the names of their parts."""
    parts = {
        "calibration": (CALIBRATED, CALIBRATION_COPIES),
        "background": (CALIBRATED, 2),
        "originals": (JUDGED, CALIBRATION_COPIES),
        "strangers": (JUDGED, CALIBRATION_COPIES),
    }
    return {
        f"{part} unseen": extractor.describe(
            f"{seed}-{part}-unseen", unseen_copies(getattr(split, part), count, families, seed)
        )
        for part, (families, count) in parts.items()
    }


def random_copies(photos: Sequence[Path], copies: int, seed: int) -> list[Picture]:
    """`copies` random copies of each photo in turn; composites paste into canvas_of it."""

    def made(path: Path, number: int) -> Image.Image:
        canvas = canvas_of(photos, path, number, seed)
        return random_copy(read_photo(path), seeded(seed, "copy", str(path), number), read_photo(canvas))

    return [
        lambda path=path, number=number: made(path, number) for path in photos for number in range(copies)
    ]


def canvas_of(photos: Sequence[Path], path: Path, number: int, seed: int) -> Path:
    """Another photo of the list."""
    place = int(seeded(seed, "c", str(path), number).integers(len(photos)))
    return _another(photos, place, path)


def describe_split(extractor: Extractor, split: Split, seed: int) -> dict[str, Features]:
    """All that the methods need of one seed, by name."""
    plain = {
        part: extractor.describe(f"{seed}-{part}", originals(getattr(split, part)))
        for part in ("originals", "distractors", "strangers", "background", "fit", "calibration")
    }
    suites = {
        f"{part} {suite}": extractor.describe(
            f"{seed}-{part}-{suite}", suite_copies(getattr(split, part), split.strangers, suite, seed)
        )
        for part, suite in product(("originals", "strangers"), SUITES)
    }
    copied = {
        f"{part} copies": extractor.describe(
            f"{seed}-{part}-copies", random_copies(getattr(split, part), count, seed)
        )
        for part, count in (("fit", FIT_COPIES),)
    }
    return plain | suites | copied


def _another(photos: Sequence[Path], place: int, than: Path) -> Path:
    chosen = photos[place % len(photos)]
    return photos[(place + 1) % len(photos)] if chosen == than else chosen


def _batches(pictures: Sequence[Picture]) -> Iterator[list[Picture]]:
    waiting = iter(pictures)
    while batch := list(islice(waiting, _BATCH)):
        yield batch
