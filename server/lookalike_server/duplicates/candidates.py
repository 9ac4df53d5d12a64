"""Which items could belong together: exact copies first, then every pair at or over a threshold.

Pure functions over arrays. Nothing here grows with the square of the collection: pairs are handed on block by
block, and whoever asked may stop in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

TOLERANCE = 1e-6
"""A float32 descriptor's length is 1 only to about 1e-7, so a pair this little under the threshold is at it.
"""

_DOUBT = 1e-4  # a float32 matrix product is nearer than this to the true similarity
_BLOCK = (512, 8192)  # 16 MiB of scores: big enough for a fast product, small enough to stop in a moment
_VERIFIED_AT_ONCE = 4096


@dataclass(frozen=True)
class Pairs:
    """One block's similar pairs: `first[i] < second[i]`, positions among the rows that were asked for."""

    first: Rows  # [p]
    second: Rows  # [p]
    share: float  # of all the work, done when this block was: 0..1


@dataclass(frozen=True)
class Plan:
    """Which pairs to compare: of two different rows, one of them at least among the first `fresh`."""

    rows: Rows  # [m], of the descriptors
    fresh: int
    among: bool = True  # False: the other one must not be among the first `fresh`

    @classmethod
    def every_pair(cls, rows: Rows) -> Plan:
        return cls(rows, len(rows))

    @property
    def columns(self) -> list[tuple[int, int]]:
        """The stretches of rows that are compared with all before them, one after the other."""
        wide = _BLOCK[1]
        begin = 0 if self.among else self.fresh
        return [(left, min(left + wide, len(self.rows))) for left in range(begin, len(self.rows), wide)]

    @property
    def cells(self) -> int:
        """How many pairs there are to compare, roughly."""
        rest = len(self.rows) - self.fresh
        return self.fresh * (self.fresh + 1) // 2 * self.among + self.fresh * rest


def number_distinct(digests: Sequence[bytes]) -> Rows:
    """Numbers the distinct images in order of first appearance: [n], equal numbers for equal digests.

    An empty digest (an item that came as a vector) equals no other.
    """
    numbers: dict[bytes | int, int] = {}
    numbered = (numbers.setdefault(digest or index, len(numbers)) for index, digest in enumerate(digests))
    return np.fromiter(numbered, np.int64, len(digests))


def similar_pairs(descriptors: Floats, rows: Rows, threshold: float) -> Iterator[Pairs]:
    """Yields every pair of `rows` whose cosine similarity is at least `threshold`, each pair once.

    descriptors: float32 [n, d], rows of length 1. rows: [m], which of them to compare, in the order that
    `Pairs` counts in. Takes memory for one block besides the descriptors, whatever the number of pairs.
    """
    plan = Plan.every_pair(rows)
    for first, second, share in with_share(compared(descriptors, plan, threshold), plan.cells):
        yield Pairs(first, second, share)


def with_share(blocks: Iterator[tuple[Rows, Rows, int]], cells: int) -> Iterator[tuple[Rows, Rows, float]]:
    """Tells with each block which share of the cells has been compared after it."""
    done = 0
    for first, second, compared_now in blocks:
        done += compared_now
        yield first, second, min(1.0, done / cells)


def compared(
    descriptors: Floats, plan: Plan, threshold: float, columns: tuple[int, int] | None = None
) -> Iterator[tuple[Rows, Rows, int]]:
    """Compares the plan's pairs, or those of one of its stretches; yields (first, second, pairs compared) for
    each block, `first[i] < second[i]`, positions in `plan.rows`.

    Exact: what float32 leaves in doubt is compared again in float64.
    """
    high, rows = _BLOCK[0], plan.rows
    for left, right in plan.columns if columns is None else [columns]:
        wide = descriptors[rows[left:right]]
        for top in range(0, min(right, plan.fresh), high):
            bottom = min(top + high, right, plan.fresh)
            start = max(left, top)  # below the diagonal each pair would come a second time
            scores = descriptors[rows[top:bottom]] @ wide[start - left :].T
            first, second = over(scores, threshold)
            certain = scores[first, second] >= threshold + _DOUBT
            first, second = first + top, second + start
            keep = first < second
            first, second, certain = first[keep], second[keep], certain[keep]
            doubtful = verified_scores(descriptors, rows[first[~certain]], rows[second[~certain]])
            certain[~certain] = doubtful >= threshold - TOLERANCE
            yield first[certain], second[certain], scores.size


def over(scores: Floats, threshold: float) -> tuple[Rows, Rows]:
    """Where float32 scores [a, b] may belong to pairs at the threshold: rows and columns."""
    # Several times faster than nonzero on two dimensions.
    flat = np.flatnonzero(scores >= threshold - TOLERANCE - _DOUBT)
    return np.divmod(flat, scores.shape[1])


def verified_scores(descriptors: Floats, first: Rows, second: Rows) -> npt.NDArray[np.float64]:
    """Cosine similarity of each pair of rows, summed in float64: [p]. The order of a pair does not matter."""
    scores = np.empty(len(first), np.float64)
    for start in range(0, len(first), _VERIFIED_AT_ONCE):
        part = slice(start, start + _VERIFIED_AT_ONCE)
        left = descriptors[first[part]].astype(np.float64)
        scores[part] = np.einsum("pd,pd->p", left, descriptors[second[part]].astype(np.float64))
    return scores


def verified_table(descriptors: Floats, first: Rows, second: Rows) -> npt.NDArray[np.float64]:
    """Cosine similarity of every row of `first` with every row of `second`, summed in float64: [a, b]."""
    left = descriptors[first].astype(np.float64)
    table = np.empty((len(first), len(second)), np.float64)
    for start in range(0, len(second), _VERIFIED_AT_ONCE):
        part = slice(start, start + _VERIFIED_AT_ONCE)
        table[:, part] = left @ descriptors[second[part]].astype(np.float64).T
    return table
