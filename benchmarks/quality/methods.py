"""The methods that are compared: which features, whitened how, and a suite's queries against a gallery."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from features import Features
from lookalike_extractor.normalization import extend_gallery, extend_queries, query_bias
from lookalike_extractor.pooling import join
from lookalike_extractor.recipe import Tap
from lookalike_extractor.whitening import Whitening, fit_pairs, fit_pca
from metrics import CopyDetection, Floats, copy_detection

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
    Method("R-GeM, last node (`semantic`)", (Tap(LAST, "rgem"),)),
    Method("two nodes raw", TWO),
    Method("three nodes raw", THREE),
    Method("two nodes, whitened on originals", TWO, "originals"),
    Method("two nodes, whitened on originals and copies", TWO, "copies"),
    Method("two nodes, learned from pairs (`near_duplicate`)", TWO, "pairs"),
    Method("three nodes, whitened on originals and copies", THREE, "copies"),
    Method("three nodes, learned from pairs", THREE, "pairs"),
)
DEFAULT = METHODS[7]


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
