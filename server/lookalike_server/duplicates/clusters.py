"""Candidates among very many items: only those that share a neighbourhood are compared.

Each item is listed with its nearest centres, and a pair is found if the two share a list (a join over an
inverted file with multiple assignment). With one centre each, an eighth of the pairs would be lost on the
borders; with four, fewer than one in a thousand (benchmarks/duplicates.py). `sampled_recall` says how many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .candidates import TOLERANCE, Floats, Pairs, Rows, compared, verified_table
from .groups import roots

CENTRES_EACH = 4
_TRAINING_ROUNDS = 4
_TRAINING_ITEMS_PER_CENTRE = 24
_AT_ONCE = 4096
_LISTING_SHARE = 0.5  # of all the work, roughly; comparing is the rest


def clustered_pairs(descriptors: Floats, rows: Rows, threshold: float) -> Iterator[Pairs]:
    """Yields the pairs that `similar_pairs` yields, each once, but for those that share no list.

    Deterministic. Takes memory for the lists and one block besides the descriptors.
    """
    lists = np.empty((len(rows), CENTRES_EACH), np.int32)
    for done in _list_all(descriptors, rows, lists):
        yield Pairs(*_NO_PAIRS, _LISTING_SHARE * done)
    yield from listed_pairs(descriptors, rows, lists, threshold)


_NO_PAIRS = (np.empty(0, np.int64), np.empty(0, np.int64))


def listed_pairs(
    descriptors: Floats, rows: Rows, lists: npt.NDArray[np.int32], threshold: float
) -> Iterator[Pairs]:
    """Compares within each list. lists: [m, CENTRES_EACH], which lists each row is in."""
    members_by_list = np.argsort(lists, axis=None, kind="stable") // CENTRES_EACH
    sizes = np.bincount(lists.reshape(-1))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    effort = np.cumsum(sizes.astype(np.float64) ** 2)
    for number in np.flatnonzero(sizes):
        members = members_by_list[starts[number] : starts[number + 1]]
        share = _LISTING_SHARE + (1 - _LISTING_SHARE) * effort[number] / effort[-1]
        for first, second, _ in compared(descriptors, rows[members], threshold):
            first, second = members[first], members[second]
            new = ~_met_before(lists[first], lists[second], int(number))
            yield Pairs(first[new], second[new], float(share))


def _met_before(
    first: npt.NDArray[np.int32], second: npt.NDArray[np.int32], number: int
) -> npt.NDArray[np.bool_]:
    """Which pairs share a list before list `number`, where they were found already: [p]."""
    met = np.zeros(len(first), np.bool_)
    for a in range(CENTRES_EACH):
        for b in range(CENTRES_EACH):
            met |= (first[:, a] == second[:, b]) & (first[:, a] < number)
    return met


def _list_all(descriptors: Floats, rows: Rows, lists: npt.NDArray[np.int32]) -> Iterator[float]:
    """Fills in each row's nearest centres; yields the share of the work done."""
    centres = descriptors[rows[_spread(len(rows), _centre_count(len(rows)))]]
    training = rows[_spread(len(rows), min(len(rows), _TRAINING_ITEMS_PER_CENTRE * len(centres)))]
    nearest = np.empty((len(training), 1), np.int32)
    total = _TRAINING_ROUNDS * len(training) + len(rows)
    done = 0
    for _ in range(_TRAINING_ROUNDS):
        for count in _nearest(descriptors, training, centres, nearest):
            done += count
            yield done / total
        centres = _means(descriptors, training, nearest[:, 0], centres)
    for count in _nearest(descriptors, rows, centres, lists):
        done += count
        yield done / total


def _centre_count(items: int) -> int:
    """Near the least of listing (items x centres) and comparing (items squared / centres)."""
    return max(CENTRES_EACH, min(items, round(3 * math.sqrt(items))))


def _spread(items: int, count: int) -> Rows:
    """`count` of so many positions, evenly spread."""
    return np.arange(count) * items // count


def _nearest(
    descriptors: Floats, rows: Rows, centres: Floats, nearest: npt.NDArray[np.int32]
) -> Iterator[int]:
    """Fills in the most similar centres of each row, [m, k], block by block; yields each block's length."""
    for start in range(0, len(rows), _AT_ONCE):
        scores = descriptors[rows[start : start + _AT_ONCE]] @ centres.T
        each = np.arange(len(scores))
        for place in range(nearest.shape[1]):  # a few times the best beats sorting
            best = scores.argmax(axis=1)
            nearest[start : start + _AT_ONCE, place] = best
            scores[each, best] = -np.inf
        yield len(scores)


def _means(descriptors: Floats, rows: Rows, nearest: npt.NDArray[np.int32], centres: Floats) -> Floats:
    """Each centre moves to the mean direction of its rows; one without rows stays where it is."""
    order = np.argsort(nearest, kind="stable")
    starts = np.searchsorted(nearest[order], np.arange(len(centres) + 1))
    moved = centres.copy()
    for number in np.flatnonzero(np.diff(starts)):
        total = descriptors[rows[order[starts[number] : starts[number + 1]]]].sum(axis=0)
        length = np.linalg.norm(total)
        if length > 0:
            moved[number] = total / length
    return moved


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
    descriptors: Floats,
    rows: Rows,
    parent: Rows,
    threshold: float,
    *,
    sample: int,
    between: Callable[[], None],
) -> Recall:
    """Compares an even sample of the rows with all rows.

    parent: [m], the sets that the pairs joined. A pair counts as found when both ends are in one set, because
    all members of a set are compared with its centres again. between: called between blocks.
    """
    sampled = _spread(len(rows), min(sample, len(rows)))
    root = roots(parent, np.arange(len(rows)))
    found = pairs = 0
    for start in range(0, len(rows), _AT_ONCE):
        scores = verified_table(descriptors, rows[sampled], rows[start : start + _AT_ONCE])
        first, second = np.nonzero(scores >= threshold - TOLERANCE)
        first, second = sampled[first], second + start
        other = first != second
        pairs += int(other.sum())
        found += int((root[first] == root[second])[other].sum())
        between()
    return Recall(found, pairs)
