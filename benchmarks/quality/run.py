"""Measures descriptors on copies of photos: `python benchmarks/quality/run.py PHOTOS --cache DIR`.

PHOTOS is a folder of a few hundred distinct photos or more; its subfolders, if any, are taken for classes.
Prints the tables of docs/quality.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
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
from lookalike_extractor.calibration import PRECISIONS, ScoredPairs, calibrate
from lookalike_extractor.normalization import extend_gallery, extend_queries, query_bias
from lookalike_extractor.pooling import join
from lookalike_extractor.recipe import Tap
from lookalike_extractor.views import PART_HANDICAP
from lookalike_extractor.whitening import Whitening, fit_pairs, fit_pca
from metrics import CopyDetection, Floats, class_retrieval, copy_detection, verification
from suites import SUITES, Split, split

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
VIEWED_ORIGINALS, VIEWED_STRANGERS = 32, 12

Describe = Callable[[str], Floats]
"""From a name in describe_split to descriptors, [n, d]."""

LAST, MIDDLE, LATE, EARLY = (
    "head",
    "blocks.10.expand",
    "blocks.15.expand",
    "blocks.5.expand",
)


@dataclass(frozen=True)
class Method:
    """Taps, and what their whitening is fitted on: "", "originals", "copies" (both) or "pairs"."""

    name: str
    taps: tuple[Tap, ...]
    fitted: str = ""


TWO = (Tap(MIDDLE, "rgem"), Tap(LATE, "rgem"))
THREE = (Tap(EARLY, "rgem"), *TWO)
METHODS = (
    Method("GAP, last node", (Tap(LAST, "avg"),)),
    Method("GeM, last node", (Tap(LAST, "gem"),)),
    Method("two nodes raw", TWO),
    Method("three nodes raw", THREE),
    Method("two nodes, whitened on originals", TWO, "originals"),
    Method("two nodes, whitened on originals and copies", TWO, "copies"),
    Method("two nodes, learned from pairs (`near_duplicate`)", TWO, "pairs"),
    Method("three nodes, whitened on originals and copies", THREE, "copies"),
    Method("three nodes, learned from pairs", THREE, "pairs"),
)
DEFAULT = METHODS[6]


def describer(method: Method, features: Mapping[str, Features]) -> Describe:
    """Fits the method's whitening on the split's photos, and describes with it."""
    whitenings = [whitening(method.fitted, features, tap) for tap in method.taps]

    @cache
    def describe(name: str) -> Floats:
        return joined(features[name], method.taps, whitenings)

    return describe


def whitening(fitted: str, features: Mapping[str, Features], tap: Tap) -> Whitening | None:
    if not fitted:
        return None
    originals = features["fit"].of(tap)
    copies = features["fit copies"].of(tap).reshape(len(originals), -1, originals.shape[1])
    dimension = min(256, originals.shape[1])
    if fitted == "pairs":
        return fit_pairs(originals, copies, dimension)
    rows = originals if fitted == "originals" else np.concatenate([originals, *copies.swapaxes(0, 1)])
    return fit_pca(rows, dimension)


def joined(features: Features, taps: Sequence[Tap], whitenings: Sequence[Whitening | None]) -> Floats:
    parts = [
        features.of(tap) if fitted is None else fitted(features.of(tap))
        for tap, fitted in zip(taps, whitenings, strict=True)
    ]
    return join([torch.from_numpy(part) for part in parts]).numpy()


@dataclass(frozen=True)
class Trial:
    """One suite's queries against the gallery: [q, n], the true row of each query or -1, the edit of each."""

    similarities: Floats
    matches: np.ndarray
    edits: np.ndarray

    def measure(self, edit: int | None = None) -> CopyDetection:
        kept = slice(None) if edit is None else self.edits == edit
        return copy_detection(self.similarities[kept], self.matches[kept])


def trial(describe: Describe, suite: str, normalised: bool = False, int8: bool = False) -> Trial:
    gallery = np.concatenate([describe("originals"), describe("distractors")])
    own, strange = describe(f"originals {suite}"), describe(f"strangers {suite}")
    queries = np.concatenate([own, strange])
    if int8:
        gallery, queries = as_int8(gallery), as_int8(queries)
    if normalised:
        queries = extend_queries(queries, query_bias(queries, describe("background")))
        gallery = extend_gallery(gallery)
    edits = len(own) // len(describe("originals"))
    matches = np.concatenate([np.arange(len(own)) // edits, np.full(len(strange), -1)])
    return Trial(queries @ gallery.T, matches, np.arange(len(queries)) % edits)


def as_int8(rows: Floats) -> Floats:
    """Rounded to 255 steps between -largest and largest of each row, and back."""
    step = np.abs(rows).max(axis=1, keepdims=True) / 127
    return np.round(rows / step) * step


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


def calibrated(describe: Describe, suite: str) -> list[tuple[float, float, float]]:
    """(asked, reached, recall): thresholds from other photos and other edits, judged on a suite."""
    gallery = np.concatenate([describe("calibration"), describe("distractors")])
    own, strange = describe("calibration unseen"), describe("background unseen")
    strange = strange[: len(own) // 3]
    copies = len(own) // len(describe("calibration"))
    numbers = np.arange(len(own) + len(strange)) // copies
    matches = np.where(np.arange(len(numbers)) < len(own), numbers, -1)
    similarities = np.concatenate([own, strange]) @ gallery.T
    thresholds = calibrate(ranked_pairs(similarities, matches, numbers), PRECISIONS)
    judged = trial(describe, suite)
    pairs = ranked_pairs(judged.similarities, judged.matches, judged.matches)
    found = []
    for threshold in thresholds:
        above = pairs.similarities >= threshold.similarity
        hits = int((above & pairs.true).sum())
        recall = hits / int((judged.matches >= 0).sum())
        found.append((threshold.precision, hits / max(1, int(above.sum())), recall))
    return found


def ranked_pairs(similarities: Floats, matches: np.ndarray, photos: np.ndarray) -> ScoredPairs:
    """The best ten pairs of each query."""
    top = np.argsort(-similarities, axis=1, kind="stable")[:, :10]
    scores = np.take_along_axis(similarities, top, axis=1)
    return ScoredPairs(scores.ravel(), (top == matches[:, None]).ravel(), np.repeat(photos, 10))


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
    parser.add_argument("--views", action="store_true", help="views of v2's queries, first seed (slow)")
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
    judged = [
        describer(DEFAULT, features[seed] | describe_unseen(viewed, splits[seed], seed)) for seed in splits
    ]
    for suite in (*SUITES, "unseen"):
        for asked in zip(*(calibrated(describe, suite) for describe in judged), strict=True):
            reached, recall = spread([row[1] for row in asked]), spread([row[2] for row in asked])
            print(f"calibrated | {suite} | {asked[0][0]:.2f} | {reached} | {recall} |")
    if wanted.views:
        seed = wanted.seeds[0]
        report_views(viewed, splits[seed], seed, features[seed])


def report_views(extractor: Extractor, photos: Split, seed: int, features: Mapping[str, Features]) -> None:
    whole = trial(describer(DEFAULT, features), "v2")
    edits = len(SUITES["v2"])
    own = len(photos.originals) * edits
    count = np.arange(len(whole.matches))
    kept = (count < VIEWED_ORIGINALS * edits) | ((count >= own) & (count < own + VIEWED_STRANGERS * edits))
    runs = {"one view": Trial(whole.similarities[kept], whole.matches[kept], whole.edits[kept])}
    for kind, (suffix, normalised) in product(VIEWS, (("", False), (" + score normalisation", True))):
        runs[kind + suffix] = view_trial(extractor, photos, seed, kind, features, normalised)
    for name, run in runs.items():
        print(f"views | {name} | all | {columns([run.measure()])} |")
        for place, edit in enumerate(SUITES["v2"]):
            print(f"views | {name} | {edit} | {columns([run.measure(place)])} |")


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
