"""Candidates among very many items: only those that share a neighbourhood are compared.

Each item is listed with its nearest centres, and a pair is found if the two share a list (a join over an
inverted file with multiple assignment). With one centre each, an eighth of the pairs would be lost on the
borders; with four, one or two in a thousand; with five, hardly any (benchmarks/duplicates.py).
`sampled_recall` says how many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .candidates import TOLERANCE, Floats, Pairs, Plan, Rows, compared, over, verified_scores

CENTRES_EACH = 5
_TRAINING_ROUNDS = 4
_TRAINING_ITEMS_PER_CENTRE = 24
_AT_ONCE = 4096

Lists = npt.NDArray[np.int32]


def clustered_pairs(descriptors: Floats, rows: Rows, threshold: float, seed: int = 0) -> Iterator[Pairs]:
    """Yields the pairs that `similar_pairs` yields, each once, but for those that share no list.

    Deterministic. Takes memory for the lists and one block besides the descriptors.
    """
    centres = trained_centres(descriptors, rows, seed)
    book = ListBook(nearest(descriptors, rows, centres, CENTRES_EACH))
    plan = Plan.every_pair(rows)
    for first, second, share in book.pairs(descriptors, plan, threshold, 0, book.count):
        yield Pairs(first, second, share)


def trained_centres(
    descriptors: Floats, rows: Rows, seed: int, between: Callable[[float], None] = lambda share: None
) -> Floats:
    """float32 [c, d]: k-means on the sphere over a sample of the rows. between: told the share done."""
    random = np.random.default_rng(seed)
    count = _centre_count(len(rows))
    training = rows[chosen(random, len(rows), min(len(rows), _TRAINING_ITEMS_PER_CENTRE * count))]
    centres: Floats = descriptors[training[chosen(random, len(training), count)]]
    for done in range(_TRAINING_ROUNDS):
        between(done / _TRAINING_ROUNDS)
        near = nearest(descriptors, training, centres, 1)[:, 0]
        centres = _means(descriptors, training, near, centres)
    return centres


def chosen(random: np.random.Generator, items: int, count: int) -> Rows:
    """`count` of so many positions, ascending, each as likely as any other."""
    return np.sort(random.permutation(items)[:count])


def _centre_count(items: int) -> int:
    """Near the least of listing (items x centres) and comparing (items squared / centres)."""
    return min(items, round(3 * math.sqrt(items)))


def nearest(descriptors: Floats, rows: Rows, centres: Floats, k: int) -> Lists:
    """The k most similar centres of each row, nearest first: int32 [m, k]; all where there are no k."""
    k = min(k, len(centres))
    found = np.empty((len(rows), k), np.int32)
    for start in range(0, len(rows), _AT_ONCE):
        scores = descriptors[rows[start : start + _AT_ONCE]] @ centres.T
        each = np.arange(len(scores))
        for place in range(k):  # a few times the best beats sorting
            best = scores.argmax(axis=1)
            found[start : start + _AT_ONCE, place] = best
            scores[each, best] = -np.inf
    return found


def _means(descriptors: Floats, rows: Rows, near: Lists, centres: Floats) -> Floats:
    """Each centre moves to the mean direction of its rows; one without rows stays where it is."""
    order = np.argsort(near, kind="stable")
    starts = np.searchsorted(near[order], np.arange(len(centres) + 1))
    moved = centres.copy()
    for number in np.flatnonzero(np.diff(starts)):
        total = descriptors[rows[order[starts[number] : starts[number + 1]]]].sum(axis=0)
        length = np.linalg.norm(total)
        if length > 0:
            moved[number] = total / length
    return moved


class ListBook:
    """Who is in which list. lists: [m, k], the lists of each position of a plan."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists
        self._members = (np.argsort(lists, axis=None, kind="stable") // lists.shape[1]).astype(np.int32)
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(lists.reshape(-1)))])
        self.count = len(self._starts) - 1

    def ranges(self, parts: int) -> list[tuple[int, int]]:
        """The lists in `parts` stretches of about the same effort, as (first, after the last)."""
        effort = np.cumsum(np.diff(self._starts).astype(np.float64) ** 2)
        ends = np.searchsorted(effort, effort[-1] * np.arange(1, parts) / parts) + 1
        bounds = np.unique([0, *ends.tolist(), self.count]).tolist()
        return list(pairwise(bounds))

    def pairs(
        self, descriptors: Floats, plan: Plan, threshold: float, begin: int, end: int
    ) -> Iterator[tuple[Rows, Rows, float]]:
        """Compares within the lists from `begin` up to `end`; yields (first, second, share done) by blocks.

        A pair comes with the first list that its two share, so each comes once over all lists.
        """
        effort = np.cumsum(np.diff(self._starts)[begin:end].astype(np.float64) ** 2)
        for number in range(begin, end):
            members = self._members[self._starts[number] : self._starts[number + 1]].astype(np.int64)
            share = float(effort[number - begin] / max(1.0, effort[-1]))
            inside = Plan(plan.rows[members], int(np.searchsorted(members, plan.fresh)), plan.among)
            for first, second, _ in compared(descriptors, inside, threshold):
                first, second = members[first], members[second]
                new = ~_met_before(self._lists[first], self._lists[second], number)
                yield first[new], second[new], share


def _met_before(first: Lists, second: Lists, number: int) -> npt.NDArray[np.bool_]:
    """Which pairs share a list before list `number`, where they were found already: [p]."""
    met = np.zeros(len(first), np.bool_)
    for a in range(first.shape[1]):
        for b in range(first.shape[1]):
            met |= (first[:, a] == second[:, b]) & (first[:, a] < number)
    return met


@dataclass(frozen=True)
class Recall:
    """How much of what there is a search found, by a sample: `found` of `pairs` similar pairs."""

    found: int
    pairs: int

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the recall (Wilson, "Probable inference", JASA 22, 1927); 0..1 if unknown."""
        if not self.pairs:
            return 0.0, 1.0
        z2 = 1.96**2
        share, weight = self.found / self.pairs, 1 + z2 / self.pairs
        middle = (share + z2 / (2 * self.pairs)) / weight
        reach = 1.96 / weight * (share * (1 - share) / self.pairs + z2 / (4 * self.pairs**2)) ** 0.5
        return max(0.0, middle - reach), min(1.0, middle + reach)


def sampled_recall(
    descriptors: Floats, plan: Plan, sets: Rows, threshold: float, sampled: Rows, between: Callable[[], None]
) -> Recall:
    """Compares a sample of the plan's fresh positions exactly with all that they are to be compared with.

    sets: [m], the set of each position. A pair counts as found when both ends are in one set, because all
    members of a set are compared with its centres again. between: called between blocks.
    """
    queries = descriptors[plan.rows[sampled]]
    found = pairs = 0
    for start in range(0 if plan.among else plan.fresh, len(plan.rows), _AT_ONCE):
        scores = queries @ descriptors[plan.rows[start : start + _AT_ONCE]].T
        first, second = over(scores, threshold)
        first, second = sampled[first], second + start
        first, second = first[first != second], second[first != second]
        real = verified_scores(descriptors, plan.rows[first], plan.rows[second]) >= threshold - TOLERANCE
        pairs += int(real.sum())
        found += int((sets[first] == sets[second])[real].sum())
        between()
    return Recall(found, pairs)
