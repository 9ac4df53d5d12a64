"""Whether calibrated thresholds keep what they promise on other photos and other edits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from lookalike_extractor.calibration import PRECISIONS, ScoredPairs, Threshold, calibrate
from methods import Describe, Trial, trial

PLAIN = 2
"""One photo in so many is searched as it is too, as `lookalike calibrate` does."""
FOR = {"calibration": "background", "originals": "strangers"}
"""Photos of a gallery, and those whose copies are queries without a match in it."""


def unseen_trial(describe: Describe, photos: str, plain: int = 0, items: int | None = None) -> Trial:
    """Copies with edits that no whitening was fitted with, a quarter of them of photos that are not there.

    Args:
        photos: in FOR; they and the distractors are the gallery.
        plain: one photo in so many is searched as it is too; 0: none.
        items: of the gallery; None means all.
    """
    there, strangers = describe(photos), FOR[photos]
    own, strange = describe(f"{photos} unseen"), describe(f"{strangers} unseen")
    rows, numbers = [own], [np.arange(len(own)) // (len(own) // len(there))]
    if plain:
        numbers.append(np.arange(0, len(there), plain))
        rows.append(there[::plain])
    matched = np.concatenate(numbers)
    rows.append(strange[: len(own) // 3])
    if plain:
        rows.append(describe(strangers)[: len(numbers[1]) // 3])
    queries = np.concatenate(rows)
    matches = np.concatenate([matched, np.full(len(queries) - len(matched), -1)])
    gallery = np.concatenate([there, describe("distractors")])[:items]
    return Trial(queries @ gallery.T, matches, np.zeros_like(matches))


def judged_on(describe: Describe) -> dict[str, tuple[Trial, str]]:
    """Queries by name, and the photos whose thresholds they are judged with: others, with other edits."""
    return {
        "v1": (trial(describe, "v1"), "calibration"),
        "v2": (trial(describe, "v2"), "calibration"),
        "unseen": (unseen_trial(describe, "originals"), "calibration"),
        "unseen, the other way round": (unseen_trial(describe, "calibration"), "originals"),
    }


def thresholds(run: Trial) -> list[Threshold]:
    return calibrate(ranked_pairs(run), PRECISIONS)


def reached(run: Trial, similarities: Sequence[float]) -> list[tuple[float, float]]:
    """Precision and recall of a trial's pairs at or above each similarity."""
    pairs, found = ranked_pairs(run), []
    for similarity in similarities:
        above = pairs.similarities >= similarity
        hits = int((above & pairs.true).sum())
        found.append((hits / max(1, int(above.sum())), hits / int((run.matches >= 0).sum())))
    return found


def ranked_pairs(run: Trial) -> ScoredPairs:
    """The best ten pairs of each query."""
    top = np.argsort(-run.similarities, axis=1, kind="stable")[:, :10]
    scores = np.take_along_axis(run.similarities, top, axis=1)
    return ScoredPairs(scores.ravel(), (top == run.matches[:, None]).ravel(), np.repeat(run.matches, 10))


def calibrated(describe: Describe, plain: int) -> dict[str, list[tuple[float, float]]]:
    """(precision, recall) for each of PRECISIONS, by what was judged."""
    learned = {photos: thresholds(unseen_trial(describe, photos, plain)) for photos in FOR}
    return {
        name: reached(run, [threshold.similarity for threshold in learned[photos]])
        for name, (run, photos) in judged_on(describe).items()
    }


def grown(describe: Describe, items: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Learned among the first `items`, judged among all: as learned, and weighed for the growth."""
    run = unseen_trial(describe, "originals")
    whole = run.similarities.shape[1]
    learned = thresholds(unseen_trial(describe, "calibration", plain=PLAIN, items=items))
    stale = reached(run, [threshold.similarity for threshold in learned])
    return stale, reached(run, [threshold.at(whole / items) for threshold in learned])
