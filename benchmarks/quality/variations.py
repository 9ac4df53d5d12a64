"""Variations of the fit on the splits and features of run.py: `variations.py PHOTOS --cache DIR`.

Describes what run.py has not described yet, and prints a row for each variation. With --side 288 it compares
the default at larger inputs with itself at 224 instead, on the seeds given: minutes of forward passes each.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from features import ALL, VIEWED, Extractor, Features, describe_split
from lookalike_extractor.pooling import join
from lookalike_extractor.recipe import Tap
from methods import EARLY, LAST, LATE, MIDDLE, THREE, TWO, Describe, trial
from metrics import Floats
from run import ENDINGS
from suites import SUITES, split

Rows = np.ndarray


@dataclass(frozen=True)
class Variation:
    """A fit that differs from the default in what is named.

    Attributes:
        power: of the damped eigenvalues in the second step; 1 divides by their square root, .5 by the fourth.
        ridge: of both steps, in units of the mean eigenvalue.
        photos: to fit, of those of the split; None means all.
        roots: whether square roots of the features are taken first.
        together: to how many dimensions the joined descriptor is whitened once more; 0: it is not.
    """

    name: str
    taps: tuple[Tap, ...] = TWO
    dimension: int = 256
    power: float = 1.0
    ridge: float = 0.1
    photos: int | None = None
    roots: bool = False
    together: int = 0


DEFAULT = Variation("two nodes (`near_duplicate`)")
HALF = Variation("three nodes, half power", THREE, power=0.5)
FOUR = (Tap(EARLY, "rgem"), Tap(MIDDLE, "rgem"), Tap(LATE, "rgem"), Tap(LAST, "rmac"))
VARIATIONS = (
    DEFAULT,
    replace(DEFAULT, name="half power", power=0.5),
    replace(DEFAULT, name="384 dimensions each", dimension=384),
    replace(DEFAULT, name="square roots of the features, then length 1", roots=True),
    replace(DEFAULT, name="whitened together once more, to 512", together=512),
    replace(DEFAULT, name="a ridge of .03", ridge=0.03),
    replace(DEFAULT, name="a ridge of .3", ridge=0.3),
    replace(DEFAULT, name="a ridge of 1", ridge=1.0),
    replace(DEFAULT, name="fitted to 90 photos", photos=90),
    replace(DEFAULT, name="fitted to 180 photos", photos=180),
    Variation("three nodes", THREE),
    HALF,
    replace(HALF, name="three nodes, half power, 170 dimensions each", dimension=170),
    replace(HALF, name="three nodes, half power, fitted to 90 photos", photos=90),
    replace(HALF, name="three nodes, half power, fitted to 180 photos", photos=180),
    Variation("four nodes, half power, R-MAC of the last", FOUR, power=0.5),
)


def describer(wanted: Variation, features: Mapping[str, Features]) -> Describe:
    """Fits the variation on the split's photos, and describes with it."""

    def rows(name: str, tap: Tap) -> Floats:
        found = features[name].of(tap)
        return _unit(np.sqrt(found)) if wanted.roots else found

    fits = [_fit(rows("fit", tap), rows("fit copies", tap), wanted) for tap in wanted.taps]

    def joined(name: str) -> Floats:
        parts = [
            _unit((rows(name, tap) - mean) @ projection)
            for tap, (mean, projection) in zip(wanted.taps, fits, strict=True)
        ]
        return join([torch.from_numpy(part) for part in parts]).numpy()

    if not wanted.together:
        return cache(joined)
    once = replace(wanted, dimension=wanted.together)
    mean, projection = _fit(joined("fit"), joined("fit copies"), once)
    return cache(lambda name: _unit((joined(name) - mean) @ projection))


def _fit(originals: Floats, copies: Floats, wanted: Variation) -> tuple[Floats, Floats]:
    """whitening.fit_pairs with a power: the mean [c] and the projection [c, d]."""
    kept, channels = wanted.photos or len(originals), originals.shape[1]
    both = np.concatenate([originals[:, None], copies.reshape(len(originals), -1, channels)], axis=1)
    both = both[:kept].astype(np.float64)
    apart = (both[:, 1:] - both[:, :1]).reshape(-1, channels)
    within, turn = np.linalg.eigh(apart.T @ apart / len(apart))
    equalise = turn / np.sqrt(_damped(within, wanted.ridge)) @ turn.T
    rows = both.reshape(-1, channels)
    mean = rows.mean(axis=0)
    spectrum, directions = np.linalg.eigh(np.cov((rows - mean) @ equalise, rowvar=False))
    scaled = directions / _damped(spectrum, wanted.ridge) ** (wanted.power / 2)
    projection = equalise @ scaled[:, ::-1][:, : min(wanted.dimension, channels)]
    return mean.astype(np.float32), projection.astype(np.float32)


def _damped(spectrum: Rows, ridge: float) -> Rows:
    return spectrum.clip(0) + ridge * spectrum.clip(0).mean()


def _unit(rows: Floats) -> Floats:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def row(name: str, describers: Sequence[Describe]) -> str:
    """Means over seeds: of each suite R@1, uAP and uAP with score normalisation."""
    cells = []
    for suite in SUITES:
        plain = [trial(describe, suite).measure() for describe in describers]
        normalised = [trial(describe, suite, normalised=True).measure() for describe in describers]
        cells += [np.mean([one.recall_at_1 for one in plain])]
        cells += [np.mean([one.micro_ap for one in several]) for several in (plain, normalised)]
    size = 4 * describers[0]("originals").shape[1]
    return f"| {name} | {size} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="the folder that run.py was given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--side", type=int, help="pixels of the network's input to compare with 224")
    wanted = parser.parse_args()
    torch.set_num_threads(2)
    paths = sorted(path for path in wanted.photos.rglob("*") if path.suffix.lower() in ENDINGS)
    splits = {seed: split(paths, seed) for seed in wanted.seeds}
    plain = Extractor(wanted.cache, ALL)
    features = [describe_split(plain, photos, seed) for seed, photos in splits.items()]
    if wanted.side is None:
        for variation in VARIATIONS:
            print(row(variation.name, [describer(variation, one) for one in features]), flush=True)
        return
    larger = Extractor(wanted.cache / str(wanted.side), VIEWED, wanted.side)
    there = [describe_split(larger, photos, seed) for seed, photos in splits.items()]
    for side, several in ((224, features), (wanted.side, there)):
        print(row(f"{side} pixels", [describer(DEFAULT, one) for one in several]))


if __name__ == "__main__":
    main()
