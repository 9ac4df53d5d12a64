"""The whole search in one call: copies | candidates | components | stars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .candidates import Floats, Rows, number_distinct, similar_pairs
from .clusters import Recall, clustered_pairs, sampled_recall
from .groups import Stars, components, join, stars
from .representative import Policy, best_first, most_connected_first

_EXACT_UP_TO = 50_000  # distinct images: about a minute on two cores at 1,280 elements
_RECALL_SAMPLE = 512

Progress = Callable[[int, int], None]
"""Called with (items compared, pairs found) between blocks; an exception it raises ends the search."""


@dataclass(frozen=True, slots=True)
class Member:
    """One item of a group."""

    row: int  # which of the items that were given
    score: float  # similarity to the representative, 1 for the representative itself
    exact: bool  # the same file, byte for byte, as the representative's


@dataclass(frozen=True, slots=True)
class Group:
    """Items that show the same picture: the representative first, then nearest first; at least two."""

    members: tuple[Member, ...]


@dataclass(frozen=True)
class Duplicates:
    """What a search found. An item is in one group at most."""

    groups: list[Group]  # largest first, then by the representative's id
    pairs: int  # pairs of items at or over the threshold
    split: int  # items that were connected to a group only through others, and were kept out of it
    recall: Recall | None = None  # None when every pair was compared


def find_duplicates(
    ids: Sequence[str],
    descriptors: Floats,
    digests: Sequence[bytes],
    attributes_json: Sequence[str],
    *,
    threshold: float,
    policy: Policy = Policy.LARGEST,
    progress: Progress = lambda items, pairs: None,
) -> Duplicates:
    """Finds the groups of near-duplicates among n items; the same groups whatever the items' order.

    ids: unique. descriptors: float32 [n, d], rows of length 1. digests: of the image files' bytes, b"" where
    there was no file. attributes_json: JSON objects. threshold: least cosine similarity of a pair, -1..1.

    Every member of a group is within the threshold of the representative, or an exact copy of one that is. Up
    to 50,000 distinct images every pair is compared; among more, pairs are looked for where they are likely,
    and the result's `recall` says how many of them that finds.
    """
    copies = _Copies(best_first(ids, attributes_json, policy), digests)
    connected = _connect(descriptors, copies, threshold, lambda share, n: progress(int(share * len(ids)), n))
    groups: list[Group] = []
    split = 0
    for component in components(connected.parent, copies.count):
        progress(len(ids), connected.pairs)
        found = _taken_apart(descriptors, component, copies, threshold, policy)
        groups += [group for group in found if len(group.members) > 1]
        split += sum(len(group.members) for group in found[1:])
    groups.sort(key=lambda group: (-len(group.members), ids[group.members[0].row]))
    return Duplicates(groups, connected.pairs, split, connected.recall)


@dataclass(frozen=True)
class _Connected:
    parent: Rows  # [m] sets of distinct images that similar pairs connect, as groups.join keeps them
    pairs: int
    recall: Recall | None


def _connect(
    descriptors: Floats, copies: _Copies, threshold: float, progress: Callable[[float, int], None]
) -> _Connected:
    parent = np.arange(len(copies.rows))
    pairs = int((copies.count * (copies.count - 1) // 2).sum())
    many = len(copies.rows) > _EXACT_UP_TO
    for block in (clustered_pairs if many else similar_pairs)(descriptors, copies.rows, threshold):
        join(parent, block.first, block.second)
        pairs += int(copies.count[block.first] @ copies.count[block.second])
        progress(block.share, pairs)
    if not many:
        return _Connected(parent, pairs, None)
    sampled = sampled_recall(
        descriptors,
        copies.rows,
        parent,
        threshold,
        sample=_RECALL_SAMPLE,
        between=lambda: progress(1.0, pairs),
    )
    return _Connected(parent, pairs, sampled)


class _Copies:
    """Exact copies, collapsed: each distinct image stands for all its copies, by its best item."""

    def __init__(self, order: Rows, digests: Sequence[bytes]) -> None:
        number = number_distinct([digests[row] for row in order])
        sorted_by_image = order[np.argsort(number, kind="stable")]
        self.count: Rows = np.bincount(number).astype(np.int64)  # [m] items of each distinct image
        self._start: Rows = np.concatenate([[0], np.cumsum(self.count)]).astype(np.int64)
        self._sorted = sorted_by_image
        self.rows: Rows = sorted_by_image[self._start[:-1]]  # [m] the best item of each distinct image

    def of(self, image: int) -> list[int]:
        """The rows of all items of a distinct image, best first."""
        rows: list[int] = self._sorted[self._start[image] : self._start[image + 1]].tolist()
        return rows


def _taken_apart(
    descriptors: Floats, component: Rows, copies: _Copies, threshold: float, policy: Policy
) -> list[Group]:
    """The stars of one component, the best centre first; some of them may be single items."""
    if policy is Policy.MOST_CONNECTED:
        counts = copies.count[component]
        component = component[most_connected_first(descriptors, copies.rows[component], counts)]
    apart = stars(descriptors, copies.rows[component], threshold)
    centres = np.flatnonzero(apart.centre == np.arange(len(component)))
    return [_star(component, apart, int(centre), copies) for centre in centres]


def _star(component: Rows, apart: Stars, centre: int, copies: _Copies) -> Group:
    inside = np.flatnonzero(apart.centre == centre)
    inside = inside[np.lexsort((inside, -apart.score[inside], inside != centre))]
    return Group(
        tuple(
            Member(row, float(apart.score[position]), bool(position == centre))
            for position in inside
            for row in copies.of(int(component[position]))
        )
    )
