"""From pairs to groups: joining what is connected, then taking chains apart again.

Being a near-duplicate is not transitive: A may resemble B and B resemble C while A and C have nothing in
common, and at scale such chains join thousands of strangers (Pinterest, "Large-scale near-duplicate image
clustering", arXiv 2209.08433). So a connected component is only where to look; a group is a star in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .candidates import TOLERANCE, Floats, Rows, verified_table

TABLE_CELLS = 4_000_000  # 32 MiB of float64


def join(parent: Rows, first: Rows, second: Rows) -> Rows:
    """Joins the sets of first[i] and second[i] for every i, in place; returns those i, ascending, that joined
    two sets. They alone would have had the same effect.

    parent: [m], initially `arange(m)`. The root of a set is always its smallest member. This is union-find
    with a whole block of pairs at a time: of several pairs that want to move one root, the one that moves it
    lowest wins and the rest try again.
    """
    joined: list[Rows] = []
    which = np.arange(len(first))
    while True:
        low, high = np.sort([roots(parent, first[which]), roots(parent, second[which])], axis=0)
        apart = low != high
        if not apart.any():
            return np.sort(np.concatenate([*joined, which[:0]]))
        which, low, high = which[apart], low[apart], high[apart]
        np.minimum.at(parent, high, low)
        won = np.flatnonzero(parent[high] == low)
        joined.append(which[won[np.unique(high[won], return_index=True)[1]]])


def roots(parent: Rows, members: Rows) -> Rows:
    """The root of each member's set: its smallest member. Shortens the way there for the next time."""
    found = parent[members]
    while True:
        above = parent[found]
        if np.array_equal(above, found):
            break
        found = above
    parent[members] = found
    return found


def components(parent: Rows, weights: Rows) -> list[Rows]:
    """The sets that weigh at least two, each ascending, in order of their smallest member.

    weights: [m], how many items (a picture and its exact copies) each member stands for.
    """
    root = roots(parent, np.arange(len(parent)))
    heavy = np.bincount(root, weights, minlength=len(parent)) >= 2
    members = np.flatnonzero(heavy[root])
    members = members[np.argsort(root[members], kind="stable")]
    return np.split(members, np.flatnonzero(np.diff(root[members])) + 1) if len(members) else []


@dataclass(frozen=True)
class Stars:
    """A component taken apart: every member belongs to the centre that it is most similar to."""

    centre: Rows  # [k], position of the member's centre; a centre's own position for itself
    score: npt.NDArray[np.float64]  # [k], similarity to the centre; 1 for a centre itself


def stars(descriptors: Floats, rows: Rows, threshold: float) -> Stars:
    """The chain guard: covers a component with stars; every member is within `threshold` of its centre.

    rows: [k], the component's members, best representative first. The first becomes a centre; of those that
    are not within the threshold of any centre yet, the best becomes the next one, until none is left (star
    clustering: Aslam, Pelekhov and Rus, "The star clustering algorithm for static and dynamic information
    organization", JGAA 8(1), 2004). A member within reach of several centres joins the most similar. So a
    chain breaks into groups and singles, and no member is ever presented as a copy of something that it does
    not resemble.
    """
    centre = np.full(len(rows), -1, np.int64)
    score = np.full(len(rows), -np.inf)
    most, at_once = max(1, TABLE_CELLS // len(rows)), 1
    while len(waiting := np.flatnonzero(centre < 0)[:at_once]):
        for candidate, similar in zip(waiting, verified_table(descriptors, rows[waiting], rows), strict=True):
            if centre[candidate] >= 0:
                continue  # a centre of this very block has taken it
            nearer = (similar >= threshold - TOLERANCE) & (similar > score + TOLERANCE)
            centre[nearer], score[nearer] = candidate, similar[nearer]
            centre[candidate], score[candidate] = candidate, np.inf  # never taken by another
        at_once = min(2 * at_once, most)  # most components need one centre only
    return Stars(centre, np.clip(score, -1.0, 1.0))
