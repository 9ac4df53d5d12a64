"""Calibration: which similarity means which precision, with how much certainty.

A threshold is only as good as the pairs it was set with: they must come from the same photos, searched the
same way, as those it will judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import FitRefused
from .whitening import Floats

PRECISIONS = (0.90, 0.95, 0.99)
LEAST_MATCHES = 50
_ROUNDS = 200

Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Threshold:
    """What is known of one threshold.

    Attributes:
        precision: what was asked for.
        similarity: the least similarity at which pairs have it; above 1 when no threshold reaches it.
        low, high: the middle 95 % of `similarity` when photos are drawn again (bootstrap).
        reached: the precision at `similarity` among the pairs it was set with.
        recall: share of the true pairs at or above it.
    """

    precision: float
    similarity: float
    low: float
    high: float
    reached: float
    recall: float


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs whose truth is known.

    Attributes:
        similarities: float32 [n].
        true: [n], whether both are the same picture.
        photos: [n], which photo the query of a pair was made of; pairs of one photo stand or fall together.
        missed: true pairs that the search did not return.
    """

    similarities: Floats
    true: Flags
    photos: Indices
    missed: int = 0


def calibrate(pairs: ScoredPairs, precisions: Sequence[float] = PRECISIONS, seed: int = 0) -> list[Threshold]:
    """A threshold for each precision.

    Raises:
        FitRefused: fewer than LEAST_MATCHES true pairs, or no false ones.
    """
    matches = int(pairs.true.sum())
    if matches < LEAST_MATCHES or pairs.true.all():
        raise FitRefused(
            f"{matches} true and {len(pairs.true) - matches} false pairs are too few to set a threshold; "
            f"give at least {LEAST_MATCHES} true and some false ones"
        )
    drawn = _redrawn(pairs, seed)
    return [_threshold(pairs, drawn, precision) for precision in precisions]


def least_similarity(similarities: Floats, true: Flags, precision: float) -> float:
    """The least similarity such that the pairs at or above it have the precision; inf when there is none."""
    order = np.argsort(-similarities, kind="stable")
    ranked = similarities[order]
    reached = np.cumsum(true[order]) / np.arange(1, len(order) + 1)
    whole = np.append(ranked[1:] < ranked[:-1], True)  # a threshold cannot part equal similarities
    good = np.flatnonzero((reached >= precision) & whole)
    return float(ranked[good[-1]]) if len(good) else float("inf")


def _threshold(pairs: ScoredPairs, drawn: list[Indices], precision: float) -> Threshold:
    similarity = least_similarity(pairs.similarities, pairs.true, precision)
    again = [least_similarity(pairs.similarities[rows], pairs.true[rows], precision) for rows in drawn]
    low, high = np.quantile(again, [0.025, 0.975], method="nearest")
    above = pairs.similarities >= similarity
    found = int((pairs.true & above).sum())
    return Threshold(
        precision,
        similarity,
        float(low),
        float(high),
        reached=found / max(1, int(above.sum())),
        recall=found / (int(pairs.true.sum()) + pairs.missed),
    )


def _redrawn(pairs: ScoredPairs, seed: int) -> list[Indices]:
    """Rows of the pairs when photos are drawn again with replacement."""
    rng = np.random.default_rng(seed)
    names, numbers = np.unique(pairs.photos, return_inverse=True)
    rows_of = np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers))[:-1])
    return [
        np.concatenate([rows_of[i] for i in rng.integers(len(names), size=len(names))])
        for _ in range(_ROUNDS)
    ]
