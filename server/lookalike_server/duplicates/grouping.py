"""From connected images to groups of items: the last stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .candidates import TOLERANCE, Floats, Rows, verified_table
from .groups import TABLE_CELLS, components, stars
from .representative import Policy, most_connected_first
from .shards import Shard
from .stages import Asked, Images

GROUPS = 4096  # of one shard

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Found:
    """One group: its items' rows, the representative first, then nearest first."""

    rows: Rows  # [k]
    scores: Scores  # [k], similarity to the representative
    exact: npt.NDArray[np.bool_]  # [k], the representative's own file, byte for byte


class Grouping:
    """Takes connected images apart into groups. `split` counts items that were connected to a group only
    through others, and were kept out of it.
    """

    def __init__(self, descriptors: Floats, images: Images, asked: Asked) -> None:
        self._descriptors = descriptors
        self._images = images
        self._asked = asked
        self.split = 0

    def groups(self, parent: Rows, similarity: Scores) -> Iterator[Found]:
        """parent: the connected sets of images; similarity: [m], of an image's link to its set."""
        for component in components(parent, self._images.count):
            if self._asked.against:
                yield from self._references(component)
            elif len(component) == 2 and self._asked.policy is not Policy.MOST_CONNECTED:
                # Most sets are pairs, and how alike the two are is known.
                if self._images.fresh[component].any():
                    yield self._star(component, np.array([1.0, similarity[component[1]]]))
            else:
                yield from self._stars(component)

    def _stars(self, component: Rows) -> Iterator[Found]:
        images = self._images
        if self._asked.policy is Policy.MOST_CONNECTED:
            rows, counts = images.best[component], images.count[component]
            component = component[most_connected_first(self._descriptors, rows, counts)]
        apart = stars(self._descriptors, images.best[component], self._asked.threshold)
        centres = np.flatnonzero(apart.centre == np.arange(len(component)))
        for place, centre in enumerate(centres):
            inside = np.flatnonzero(apart.centre == centre)
            inside = inside[np.lexsort((inside, -apart.score[inside], inside != centre))]
            found = self._star(component[inside], apart.score[inside])
            self.split += len(found.rows) if place else 0
            if len(found.rows) > 1 and images.fresh[component[inside]].any():
                yield found

    def _star(self, members: Rows, scores: Scores) -> Found:
        counts = self._images.count[members]
        rows = np.concatenate([self._images.of(int(image)) for image in members])
        return Found(rows, np.repeat(scores, counts), np.repeat(members == members[0], counts))

    def _references(self, component: Rows) -> Iterator[Found]:
        """Each image joins the reference image that it is most similar to, if it is similar to one at all."""
        images = self._images
        centres = component[images.reference[component]]
        others = component[images.fresh[component]]
        if not len(centres):
            return
        chosen, score = self._most_similar(others, centres)
        near = score >= self._asked.threshold - TOLERANCE
        self.split += int(images.count[others[~near]].sum())
        for place, centre in enumerate(centres):
            inside = np.flatnonzero(near & (chosen == place))
            inside = inside[np.lexsort((inside, -score[inside]))]
            found = self._star(np.append(centre, others[inside]), np.append(1.0, score[inside]))
            copies = self._without_references(found)
            if len(copies.rows) > 1:
                yield copies

    def _most_similar(self, others: Rows, centres: Rows) -> tuple[Rows, Scores]:
        chosen, score = np.empty(len(others), np.int64), np.empty(len(others))
        at_once = max(1, TABLE_CELLS // len(centres))
        for start in range(0, len(others), at_once):
            part = slice(start, start + at_once)
            table = verified_table(
                self._descriptors, self._images.best[others[part]], self._images.best[centres]
            )
            chosen[part] = table.argmax(axis=1)
            score[part] = table.max(axis=1)
        return chosen, np.minimum(score, 1.0)

    def _without_references(self, found: Found) -> Found:
        """Of the reference items the first alone: the others are nobody's copies. Of the rest, new ones."""
        keep = self._images.is_new[found.rows] & ~self._images.is_reference[found.rows]
        keep[0] = True
        return Found(found.rows[keep], found.scores[keep], found.exact[keep])


def group_shards(snapshot: pa.Table, found: Sequence[Found], split: int) -> Iterator[Shard]:
    """The groups as tables, largest first, then by the representative's id; one shard at least."""
    heads = snapshot.column("id").take(pa.array([group.rows[0] for group in found], pa.int64())).to_pylist()
    order = sorted(range(len(found)), key=lambda group: (-len(found[group].rows), heads[group]))
    pieces = [order[start : start + GROUPS] for start in range(0, len(order), GROUPS)] or [[]]
    for number, piece in enumerate(pieces):
        facts = {"of": len(pieces), "first": number * GROUPS, "groups": len(piece), "split": split}
        yield Shard(_table(snapshot, [found[group] for group in piece], number * GROUPS), facts)


def _table(snapshot: pa.Table, found: Sequence[Found], first: int) -> pa.Table:
    rows = np.concatenate([np.empty(0, np.int64), *(group.rows for group in found)])
    items = snapshot.select(["id", "attributes"]).take(pa.array(rows))
    columns = {
        "group": np.repeat(np.arange(first, first + len(found)), [len(group.rows) for group in found]),
        "row": rows,
        "id": items.column("id"),
        "score": np.concatenate([np.empty(0), *(group.scores for group in found)]).astype(np.float32),
        "exact": np.concatenate([np.empty(0, np.bool_), *(group.exact for group in found)]),
        "attributes": items.column("attributes"),
    }
    return pa.table(columns)
