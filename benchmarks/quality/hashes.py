"""Perceptual hash, the usual baseline: DCT of a 32 x 32 grey picture, 64 bits (package imagehash)."""

from __future__ import annotations

from pathlib import Path

import imagehash
import numpy as np
from features import Picture, originals, suite_copies
from metrics import CopyDetection, Floats, copy_detection
from suites import SUITES, Split


def hash_trials(photos: Split, seed: int, cache: Path) -> dict[str, CopyDetection]:
    gallery = _hashes(cache / f"{seed}-gallery-phash.npy", originals(photos.originals + photos.distractors))
    return {suite: _trial(photos, seed, cache, suite, gallery) for suite in SUITES}


def _trial(photos: Split, seed: int, cache: Path, suite: str, gallery: Floats) -> CopyDetection:
    queries = [
        _hashes(
            cache / f"{seed}-{part}-{suite}-phash.npy",
            suite_copies(getattr(photos, part), photos.strangers, suite, seed),
        )
        for part in ("originals", "strangers")
    ]
    matches = np.concatenate([np.arange(len(queries[0])) // len(SUITES[suite]), np.full(len(queries[1]), -1)])
    return copy_detection(np.concatenate(queries) @ gallery.T, matches)


def _hashes(file: Path, pictures: list[Picture]) -> Floats:
    """[n, 64] of -1 and 1; their product falls with the distance."""
    if not file.exists():
        np.save(file, np.stack([imagehash.phash(picture()).hash.ravel() for picture in pictures]))
    bits: Floats = 2 * np.load(file).astype(np.float32) - 1
    return bits
