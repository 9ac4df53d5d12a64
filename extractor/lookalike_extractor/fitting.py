"""Fits a recipe's whitening to photos and copies made of them: minutes of forward passes, seconds of algebra.

No labels are needed. The fit is tried on photos that it has not seen, and refused when it finds fewer of
their copies than the features did by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from .artifacts import Artifact, rounded
from .backbones import load_backbone
from .copies import FAMILIES, check_families, random_copy, seeded
from .descriptor import DescriptorModel
from .errors import FitRefused, ImageError
from .pooling import join
from .preprocessing import Pixels, Preprocessing, fit
from .recipe import Recipe
from .views import picture
from .whitening import Floats, fit_pairs

Progress = Callable[[int, int], None]
_BATCH = 16
_LEAST_PHOTOS = 50
_TRIED = 5  # every fifth photo is kept out of the fit and tries it


@dataclass(frozen=True)
class FitSettings:
    """How a fit is made.

    Attributes:
        copies: made of each photo.
        dimension: of each tap's whitened part; less where a tap has fewer channels.
        families: edits that copies are made with; names in copies.FAMILIES.
        seed: of the copies.
    """

    copies: int = 3
    dimension: int = 256
    families: tuple[str, ...] = tuple(FAMILIES)
    seed: int = 0

    def __post_init__(self) -> None:
        check_families(self.families)
        if self.copies < 1:
            raise FitRefused(f"{self.copies} copies of each photo were asked for; ask for 1 or more")


@dataclass(frozen=True)
class Fit:
    """A fitted artifact, and the photos that could not be read, with the reason."""

    artifact: Artifact
    unreadable: dict[Path, str]


def fit_recipe(
    recipe: Recipe,
    photos: Sequence[Path],
    settings: FitSettings = FitSettings(),
    progress: Progress | None = None,
) -> Fit:
    """Fits a whitening for each tap of a recipe.

    Args:
        recipe: its own whitening, if any, is not used.
        photos: files; distinct pictures, of the kind that will be searched. A few hundred are enough.
        progress: called with (pictures described, pictures in all).

    Raises:
        FitRefused: too few photos, all alike, or a fit that would harm; with the numbers.
    """
    readable, unreadable = _readable(photos)
    if len(readable) < _LEAST_PHOTOS:
        raise FitRefused(
            f"{len(readable)} readable photos are too few to fit; give {_LEAST_PHOTOS} or more, better 500"
        )
    backbone = load_backbone(recipe.backbone, recipe.weights)
    model = DescriptorModel(backbone, [replace(recipe, whitening=None)])
    originals, copies = describe_with_copies(model, readable, settings, progress)
    tried = np.arange(len(readable)) % _TRIED == 0
    whitenings = tuple(
        rounded(fit_pairs(o[~tried], c[~tried], min(settings.dimension, o.shape[1])))
        for o, c in zip(originals, copies, strict=True)
    )
    taps = tuple(str(tap) for tap in recipe.taps)
    fitted = Artifact(recipe.backbone, backbone.weights_digest, taps, whitenings)
    facts = {
        "photos": int((~tried).sum()),
        "copies": settings.copies,
        "families": list(settings.families),
        "seed": settings.seed,
        **trial(originals, copies, fitted, tried),
    }
    return Fit(replace(fitted, facts=facts), unreadable)


def trial(
    originals: list[Floats], copies: list[Floats], fitted: Artifact, tried: NDArray[np.bool_]
) -> dict[str, float]:
    """Finds copies of the photos kept out among all photos, with the features as they are and whitened.

    Args:
        originals: [n, c] of each tap.
        copies: [n, k, c] of each tap.
        tried: [n], the photos kept out.

    Returns:
        The share of copies whose original ranks first, as "found_before" and "found_after".

    Raises:
        FitRefused: an original is not nearest to itself, or fewer copies are found than before.
    """
    before, after = _joined(originals), _joined(fitted.whiten(originals))
    queries = [c[tried].reshape(-1, c.shape[2]) for c in copies]
    truth = np.repeat(np.flatnonzero(tried), copies[0].shape[1])
    found_before = _found_first(_joined(queries), before, truth)
    found_after = _found_first(_joined(fitted.whiten(queries)), after, truth)
    itself = _found_first(after, after, np.arange(len(after)))
    if itself < 1.0 or found_after < found_before:
        raise FitRefused(
            f"this fit would harm: of {len(truth)} copies kept out of it, {found_before:.1%} find their "
            f"original first without it and {found_after:.1%} with it, and {itself:.1%} of the photos find "
            "themselves; give more photos, of more kinds, or ask for fewer dimensions"
        )
    return {"found_before": round(found_before, 4), "found_after": round(found_after, 4)}


def describe_with_copies(
    model: DescriptorModel, photos: Sequence[Path], settings: FitSettings, progress: Progress | None = None
) -> tuple[list[Floats], list[Floats]]:
    """Pooled features of photos and of copies of them, for each tap: [n, c] and [n, k, c]."""
    variants = settings.copies + 1
    total, done = len(photos) * variants, 0
    batches: list[list[Floats]] = []
    for batch in _batched(_variants(photos, settings, model.preprocessing)):
        batches.append(pooled(model, batch))
        done += len(batch)
        if progress is not None:
            progress(done, total)
    rows = [np.concatenate(parts).reshape(len(photos), variants, -1) for parts in zip(*batches, strict=True)]
    return [row[:, 0] for row in rows], [row[:, 1:] for row in rows]


@torch.inference_mode()
def pooled(model: DescriptorModel, pictures: Sequence[Pixels]) -> list[Floats]:
    """Pooled features of pictures at the model's size, uint8 [h, w, 3]: float32 [n, c] for each tap."""
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    (head,) = model.heads
    return [part.numpy() for part in head.pooled(model.features(pixels))]


def read_photo(path: Path) -> Image.Image:
    """A photo, upright, RGB, with at most copies.LONGEST_SIDE pixels a side. Raises ImageError or OSError."""
    return Image.fromarray(picture(path.read_bytes()))


def _variants(
    photos: Sequence[Path], settings: FitSettings, preprocessing: Preprocessing
) -> Iterator[Pixels]:
    """Each photo and then its copies, at the model's size. Composites paste into the photo before."""
    before = read_photo(photos[-1])
    for path in photos:
        photo = read_photo(path)
        yield fit(np.asarray(photo), preprocessing)
        for number in range(settings.copies):
            chance = seeded(settings.seed, path.name, number)
            copy = random_copy(photo, chance, before, settings.families)
            yield fit(np.asarray(copy), preprocessing)
        before = photo


def _readable(photos: Sequence[Path]) -> tuple[list[Path], dict[Path, str]]:
    unreadable: dict[Path, str] = {}
    for path in photos:
        try:
            read_photo(path)
        except (ImageError, OSError) as error:
            unreadable[path] = str(error)
    # By name: the same photos in other folders give the same copies, so the same fit.
    readable = sorted((path for path in photos if path not in unreadable), key=lambda path: (path.name, path))
    return readable, unreadable


def _batched(pictures: Iterator[Pixels]) -> Iterator[list[Pixels]]:
    while batch := list(islice(pictures, _BATCH)):
        yield batch


def _joined(parts: list[Floats]) -> Floats:
    return join([torch.from_numpy(part) for part in parts]).numpy()


def _found_first(queries: Floats, gallery: Floats, truth: NDArray[np.intp]) -> float:
    similarities = queries @ gallery.T
    # As good as the best but for rounding: two equal pictures may both be first.
    own = similarities[np.arange(len(truth)), truth]
    return float((own >= similarities.max(axis=1) - 1e-6).mean())
