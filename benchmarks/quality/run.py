"""Measures descriptors on copies of photos: `python benchmarks/quality/run.py PHOTOS --cache DIR`.

PHOTOS is a folder of a few hundred distinct photos or more; its subfolders, if any, are taken for classes.
Prints the tables of docs/quality.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from calibrating import calibrated, grown
from features import (
    ALL,
    VIEWED,
    VIEWS,
    Extractor,
    Features,
    describe_split,
    describe_unseen,
    suite_copies,
)
from lookalike_extractor.calibration import PRECISIONS
from lookalike_extractor.normalization import query_bias
from lookalike_extractor.views import PART_HANDICAP
from methods import DEFAULT, METHODS, Describe, Trial, describer, joined, trial, whitening
from metrics import CopyDetection, class_retrieval, verification
from suites import SUITES, Split, split

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
VIEWED_ORIGINALS, VIEWED_STRANGERS = 32, 12


def view_trial(
    extractor: Extractor,
    photos: Split,
    seed: int,
    kind: str,
    features: Mapping[str, Features],
    normalised: bool,
) -> Trial:
    """Suite v2 with views of each query, on its first originals and strangers; the gallery is whole."""
    describe = describer(DEFAULT, features)
    whitenings = [whitening(DEFAULT.fitted, features, tap) for tap in DEFAULT.taps]
    gallery = np.concatenate([describe("originals"), describe("distractors")])
    edits, (seen, count) = len(SUITES["v2"]), VIEWS[kind]
    rows = []
    for part, most in (("originals", VIEWED_ORIGINALS), ("strangers", VIEWED_STRANGERS)):
        pictures = suite_copies(getattr(photos, part)[:most], photos.strangers, "v2", seed)
        name = f"{seed}-{part}-v2-{'views' if count == 10 else 'pasted'}"
        rows.append(joined(extractor.describe(name, pictures, seen), DEFAULT.taps, whitenings))
    queries = np.concatenate(rows)
    similarities = queries @ gallery.T
    if normalised:
        similarities -= query_bias(queries, describe("background"))[:, None]
    per_view = similarities.reshape(-1, count, len(gallery))
    per_view[:, 1:] -= PART_HANDICAP
    best = per_view.max(axis=1)
    own = len(rows[0]) // count
    matches = np.concatenate([np.arange(own) // edits, np.full(len(best) - own, -1)])
    return Trial(best, matches, np.arange(len(best)) % edits)


def verified(run: Trial) -> tuple[float, float, float]:
    """EER, TAR at a FAR of .01 and of .001: pairs of a copy and its photo against pairs with any other."""
    matched = run.matches >= 0
    true = np.zeros(run.similarities.shape, bool)
    true[np.flatnonzero(matched), run.matches[matched]] = True
    told = verification(run.similarities[true], run.similarities[~true])
    return told.equal_error_rate, *told.accepted


def class_map(describe: Describe, photos: Split) -> float:
    paths = photos.originals + photos.distractors
    rows = np.concatenate([describe("originals"), describe("distractors")])
    return class_retrieval(rows, np.array([path.parent.name for path in paths]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="a folder for what is described")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--views", action="store_true", help="views of v2's queries too (slow)")
    parser.add_argument(
        "--hash", action="store_true", help="perceptual hash too; needs `pip install imagehash`"
    )
    wanted = parser.parse_args()
    torch.set_num_threads(2)
    paths = sorted(path for path in wanted.photos.rglob("*") if path.suffix.lower() in ENDINGS)
    splits = {seed: split(paths, seed) for seed in wanted.seeds}
    extractor = Extractor(wanted.cache, ALL)
    features = {seed: describe_split(extractor, photos, seed) for seed, photos in splits.items()}
    if wanted.hash:
        from hashes import hash_trials

        print_rows("perceptual hash, 64 bit", 8, [hash_trials(splits[s], s, wanted.cache) for s in splits])
    for method in METHODS:
        describers = {seed: describer(method, features[seed]) for seed in splits}
        size = 4 * describers[wanted.seeds[0]]("originals").shape[1]
        for name, options in (("", {}), (" + score normalisation", {"normalised": True})):
            if method.fitted == "" and options:
                continue
            print_rows(
                method.name + name,
                size,
                [
                    {suite: trial(d, suite, **options).measure() for suite in SUITES}
                    for d in describers.values()
                ],
            )
        maps = [class_map(describers[seed], splits[seed]) for seed in splits]
        print(f"    class mAP {spread(maps)}")
    report_default(wanted, extractor, splits, features)


def report_default(
    wanted: argparse.Namespace,
    extractor: Extractor,
    splits: Mapping[int, Split],
    features: Mapping[int, Mapping],
) -> None:
    describers = [describer(DEFAULT, features[seed]) for seed in splits]
    int8 = [{suite: trial(d, suite, int8=True).measure() for suite in SUITES} for d in describers]
    print_rows(DEFAULT.name + ", int8", describers[0]("originals").shape[1], int8)
    for suite, edits in SUITES.items():
        for place, edit in enumerate(edits):
            rows = [trial(d, suite).measure(place) for d in describers]
            print(f"| {suite} | {edit} | {columns(rows)} |")
        told = [verified(trial(describe, suite)) for describe in describers]
        rates = " | ".join(spread(list(values)) for values in zip(*told, strict=True))
        print(f"verification | {suite} | {rates} |")
    viewed = Extractor(wanted.cache, VIEWED)
    report_thresholds(
        [describer(DEFAULT, features[s] | describe_unseen(viewed, splits[s], s)) for s in splits]
    )
    if wanted.views:
        report_views([views_of(viewed, splits[s], s, features[s]) for s in splits])


def report_thresholds(describers: Sequence[Describe]) -> None:
    for plain in (0, 4, 2, 1):
        judged = [calibrated(describe, plain) for describe in describers]
        for name in judged[0]:
            cells = both([found[name] for found in judged])
            print(f"calibrated, as it is one in {plain} | {name} | {cells} |")
    for items in (96, 192, 288):
        found = [grown(describe, items) for describe in describers]
        for place, kind in enumerate(("as learned", "weighed")):
            print(f"grown | {items} | {kind} | {both([pair[place] for pair in found])} |")


def both(found: Sequence[list[tuple[float, float]]]) -> str:
    """Precision and recall at each of PRECISIONS, over seeds."""
    return " | ".join(
        f"{spread([seed[place][0] for seed in found])} | {spread([seed[place][1] for seed in found])}"
        for place in range(len(PRECISIONS))
    )


def views_of(
    extractor: Extractor, photos: Split, seed: int, features: Mapping[str, Features]
) -> dict[str, Trial]:
    whole = trial(describer(DEFAULT, features), "v2")
    edits = len(SUITES["v2"])
    own = len(photos.originals) * edits
    count = np.arange(len(whole.matches))
    kept = (count < VIEWED_ORIGINALS * edits) | ((count >= own) & (count < own + VIEWED_STRANGERS * edits))
    runs = {"one view": Trial(whole.similarities[kept], whole.matches[kept], whole.edits[kept])}
    for kind, (suffix, normalised) in product(VIEWS, (("", False), (" + score normalisation", True))):
        runs[kind + suffix] = view_trial(extractor, photos, seed, kind, features, normalised)
    return runs


def report_views(seeds: Sequence[Mapping[str, Trial]]) -> None:
    for name in seeds[0]:
        runs = [seed[name] for seed in seeds]
        print(f"views | {name} | all | {columns([run.measure() for run in runs])} |")
        for place, edit in enumerate(SUITES["v2"]):
            print(f"views | {name} | {edit} | {columns([run.measure(place) for run in runs])} |")


def print_rows(name: str, size: int, measured: Sequence[Mapping[str, CopyDetection]]) -> None:
    print(
        f"| {name} | {size} | " + " | ".join(columns([run[s] for run in measured]) for s in SUITES) + " |",
        flush=True,
    )


def columns(rows: Sequence[CopyDetection]) -> str:
    return " | ".join(
        spread([getattr(row, field) for row in rows])
        for field in ("recall_at_1", "micro_ap", "recall_at_p90")
    )


def spread(values: Sequence[float]) -> str:
    """Mean, and half the distance between the least and the largest when there are several."""
    text = f"{np.mean(values):.3f}"
    return text if len(values) < 2 else f"{text} ± {np.ptp(values) / 2:.3f}"


if __name__ == "__main__":
    main()
