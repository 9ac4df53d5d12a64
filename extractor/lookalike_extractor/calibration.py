"""Calibration: which similarity means which precision, with how much certainty.

A threshold is only as good as the pairs it was set with: they must come from the same photos, searched the
same way, as those it will judge. Two things move the precision most. The size of the collection: among twice
as many items a query meets twice as many pictures that only look like it, and as many true matches as before.
And how much the queries are edited: the less, the more they look like other pictures too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import FitRefused
from .whitening import Floats

PRECISIONS = (0.90, 0.95, 0.99)
LEAST_MATCHES = 50
_ROUNDS = 200
_STEP, _STEPS = math.sqrt(2), 20  # thresholds are known for collections grown up to 1,024 times
_Z = 1.959964  # of a normal distribution, 95 % lies within so many deviations

Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]
Weights = NDArray[np.intp] | NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """What is known of one threshold. Intervals are of 95 %.

    Attributes:
        precision: what was asked for.
        similarity: the least similarity at which pairs have it; infinite when no threshold reaches it.
        low, high: the interval of `similarity` when photos are drawn again (bootstrap).
        reached: the precision at `similarity` among the pairs it was set with.
        reached_low, reached_high: its interval (Wilson).
        recall: share of the true pairs at or above it.
        grown: what `similarity` has to be when the collection has become larger, by step.
    """

    precision: float
    similarity: float
    low: float
    high: float
    reached: float
    reached_low: float
    reached_high: float
    recall: float
    grown: tuple[float, ...] = ()

    def at(self, growth: float) -> float:
        """The least similarity that has the precision in a collection `growth` times as large as then.

        Infinite when none has. Less than what it was set with counts as 1, more than 1,024 as that.
        """
        step = round(math.log(growth, _STEP)) if growth > 1 else 0
        return (self.similarity, *self.grown)[min(step, len(self.grown))]


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
    order = np.argsort(-pairs.similarities, kind="stable")
    ranked = ScoredPairs(pairs.similarities[order], pairs.true[order], pairs.photos[order], pairs.missed)
    drawn = _redrawn(ranked.photos, seed)
    return [_threshold(ranked, drawn, precision) for precision in precisions]


def least_similarity(
    similarities: Floats, true: Flags, precision: float, weights: Weights | None = None
) -> float:
    """The least similarity such that the pairs at or above it have the precision; inf when there is none.

    Args:
        similarities: [n].
        true: [n], whether a pair is one.
        weights: [n], how much each pair counts; None means once.
    """
    order = np.argsort(-similarities, kind="stable")
    ranked, counts = similarities[order], np.ones(len(order), np.intp) if weights is None else weights[order]
    reached = np.cumsum(true[order] * counts) / np.maximum(np.cumsum(counts), 1)
    whole = np.append(ranked[1:] < ranked[:-1], True)  # a threshold cannot part equal similarities
    good = np.flatnonzero((reached >= precision) & whole)
    return float(ranked[good[-1]]) if len(good) else float("inf")


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The interval of a share, of 95 % (Wilson, JASA 1927); it holds for few trials and near 0 and 1."""
    if not trials:
        return 0.0, 1.0
    share, extra = successes / trials, _Z**2 / trials
    middle = share + extra / 2
    spread = _Z * math.sqrt(share * (1 - share) / trials + extra / (4 * trials))
    return max(0.0, (middle - spread) / (1 + extra)), min(1.0, (middle + spread) / (1 + extra))


def _threshold(ranked: ScoredPairs, drawn: list[Indices], precision: float) -> Threshold:
    similarity = least_similarity(ranked.similarities, ranked.true, precision)
    again = [least_similarity(ranked.similarities, ranked.true, precision, weights) for weights in drawn]
    low, high = np.quantile(again, [0.025, 0.975], method="nearest")
    above = ranked.similarities >= similarity
    found, all_above = int((ranked.true & above).sum()), int(above.sum())
    grown = [
        least_similarity(ranked.similarities, ranked.true, precision, np.where(ranked.true, 1.0, _STEP**step))
        for step in range(1, _STEPS + 1)
    ]
    return Threshold(
        precision,
        similarity,
        float(low),
        float(high),
        found / max(1, all_above),
        *wilson(found, all_above),
        recall=found / (int(ranked.true.sum()) + ranked.missed),
        grown=tuple(grown),
    )


def _redrawn(photos: Indices, seed: int) -> list[Indices]:
    """How often each pair counts when photos are drawn again with replacement, for each round."""
    rng = np.random.default_rng(seed)
    names, numbers = np.unique(photos, return_inverse=True)
    return [
        np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[numbers]
        for _ in range(_ROUNDS)
    ]
