"""The whole search: snapshot | images | centres | lists | links | recall | groups, each kept as shards.

Run over shards that are there already, it makes only those that are not: a search that was killed goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from . import stages
from .candidates import Floats, Rows, compared, with_share
from .clusters import Recall
from .grouping import Grouping, Scores, group_shards
from .groups import join
from .shards import Shard, Shards
from .stages import Asked, Images

if TYPE_CHECKING:
    from lookalike_server.answers import Snapshot

_EXACT_CELLS = 50_000 * 50_000 // 2  # pairs: about a minute on two cores at 1,280 elements
_LINK_SHARDS = 64
# What the stages take of the time, roughly.
_CENTRES, _LISTS, _LINKS, _RECALL = 0.1, 0.3, 0.55, 0.05


@dataclass(frozen=True)
class Progress:
    """How far a search is. share: of all the work, 0..1."""

    share: float = 0.0
    items: int = 0
    pairs: int = 0
    sequence: int = 0
    recall: Recall | None = None
    """None when every pair was compared, and while that is not known."""


Watcher = Callable[[Progress], None]
"""Called between blocks; an exception it raises ends the search."""


class Search:
    """One search over its shards.

    Args:
        shards: those that are there are not made again.
        asked: what to search for. Shards that were made for anything else must not be there.
        watch: told of the progress.
    """

    def __init__(self, shards: Shards, asked: Asked, watch: Watcher = lambda progress: None) -> None:
        self._shards = shards
        self._asked = asked
        self._watch = watch
        self._items = self._pairs = self._sequence = 0
        self._recall: Recall | None = None

    def run(self, take: Callable[[], Snapshot]) -> Progress:
        """Does what is not done yet, and returns how it ended. take: called if there is no snapshot yet.

        Every member of a group is within the threshold of the representative, or an exact copy of one that
        is. Up to 50,000 distinct images every pair is compared; among more, pairs are looked for where they
        are likely, and `recall` says how many of them that finds.
        """
        snapshot, descriptors = self._snapshot(take)
        (shard,) = self._stage("images", 1, lambda _, tell: stages.images(snapshot, self._asked), (0, 0))
        images = Images(shard.table, self._asked)
        self._pairs = images.exact_pairs
        many = images.plan.cells > _EXACT_CELLS
        parent, similarity = np.arange(len(images.count)), np.full(len(images.count), np.nan)
        for shard in self._listed(descriptors, images) if many else self._compared(descriptors, images):
            first, second = shard.table.column("first").to_numpy(), shard.table.column("second").to_numpy()
            joined = join(parent, first, second)
            last = np.maximum(first, second)[joined]
            similarity[last] = shard.table.column("similarity").to_numpy()[joined]
        if many:
            self._state_recall(descriptors, images, parent)
        self._group(snapshot, descriptors, images, parent, similarity)
        return self._progress(1.0)

    def _snapshot(self, take: Callable[[], Snapshot]) -> tuple[pa.Table, Floats]:
        """The items without their vectors, and the vectors."""
        first = self._shards.get("snapshot", 0)
        if first is not None:
            kept = self._kept_snapshot(first)
            if kept is not None:
                return kept
        self._shards.clear()  # what was made is of another moment
        taken = take()
        count, dimension = taken.descriptors.shape
        self._items, self._sequence = count, taken.sequence
        facts = {
            "of": max(1, -(-count // stages.ROWS)),
            "items": count,
            "dimension": dimension,
            "sequence": taken.sequence,
        }
        tables = []
        for number in range(facts["of"]):
            self._tell(0.0)
            table = _piece(taken, slice(number * stages.ROWS, (number + 1) * stages.ROWS))
            self._shards.put("snapshot", number, Shard(table, facts))
            tables.append(table.drop_columns(["vector"]))
        return pa.concat_tables(tables), taken.descriptors

    def _kept_snapshot(self, shard: Shard) -> tuple[pa.Table, Floats] | None:
        facts = shard.facts
        descriptors = np.empty((facts["items"], facts["dimension"]), np.float32)
        tables = []
        for number in range(facts["of"]):
            self._tell(0.0)
            kept = self._shards.get("snapshot", number)
            if kept is None:
                return None
            start = number * stages.ROWS
            descriptors[start : start + kept.table.num_rows] = stages.matrix(kept.table)
            tables.append(kept.table.drop_columns(["vector"]))
        self._items, self._sequence = facts["items"], facts["sequence"]
        return pa.concat_tables(tables), descriptors

    def _compared(self, descriptors: Floats, images: Images) -> Iterator[Shard]:
        """Every pair, one stretch of rows after the other."""
        columns = images.plan.columns

        def make(number: int, tell: stages.Between) -> Shard:
            left, right = columns[number]
            blocks = compared(descriptors, images.plan, self._asked.threshold, columns[number])
            cells = max(1, (right - left) * min(right, images.plan.fresh))
            return stages.links(descriptors, images, with_share(blocks, cells), tell)

        return self._stage("links", len(columns), make, (0, 1))

    def _listed(self, descriptors: Floats, images: Images) -> Iterator[Shard]:
        """The pairs that are likely to be similar."""
        asked, plan = self._asked, images.plan
        end = _CENTRES
        (shard,) = self._stage(
            "centres", 1, lambda _, tell: stages.centres(descriptors, images, asked.seed, tell), (0, end)
        )
        centres = stages.matrix(shard.table)
        begin, end = end, end + _LISTS
        listed = self._stage(
            "lists",
            -(-len(plan.rows) // stages.LISTED),
            lambda number, tell: stages.lists(descriptors, images, centres, number),
            (begin, end),
        )
        book = stages.book([shard.table for shard in listed])
        ranges = book.ranges(_LINK_SHARDS)

        def make(number: int, tell: stages.Between) -> Shard:
            blocks = book.pairs(descriptors, plan, asked.threshold, *ranges[number])
            return stages.links(descriptors, images, blocks, tell)

        yield from self._stage("links", len(ranges), make, (end, end + _LINKS))

    def _state_recall(self, descriptors: Floats, images: Images, parent: Rows) -> None:
        (shard,) = self._stage(
            "recall",
            1,
            lambda _, tell: stages.recall(descriptors, images, parent, self._asked, tell),
            (1 - _RECALL, 1),
        )
        self._recall = Recall(shard.facts["found"], shard.facts["pairs"])

    def _group(
        self, snapshot: pa.Table, descriptors: Floats, images: Images, parent: Rows, similarity: Scores
    ) -> None:
        first = self._shards.get("groups", 0)
        if first is not None and all(self._shards.get("groups", n) for n in range(first.facts["of"])):
            return
        grouping = Grouping(descriptors, images, self._asked)
        found = []
        for group in grouping.groups(parent, similarity):
            found.append(group)
            if not len(found) % 256:
                self._tell(1.0)
        for number, shard in enumerate(group_shards(snapshot, found, grouping.split)):
            self._shards.put("groups", number, shard)

    def _stage(
        self,
        name: str,
        count: int,
        make: Callable[[int, stages.Between], Shard],
        span: tuple[float, float],
    ) -> Iterator[Shard]:
        """The shards of a stage, those that are there and those that are made. span: of the whole work."""
        begin, width = span[0], (span[1] - span[0]) / max(1, count)
        for number in range(count):
            before = self._pairs

            def tell(share: float, pairs: int, number: int = number, before: int = before) -> None:
                self._pairs = before + pairs
                self._tell(begin + width * (number + share))

            shard = self._shards.get(name, number)
            if shard is None:
                shard = make(number, tell)
                self._shards.put(name, number, shard)
            self._pairs = before + shard.facts.get("pairs", 0) * (name == "links")
            self._tell(begin + width * (number + 1))
            yield shard

    def _tell(self, share: float) -> None:
        self._watch(self._progress(share))

    def _progress(self, share: float) -> Progress:
        return Progress(min(1.0, share), self._items, self._pairs, self._sequence, self._recall)


def _piece(taken: Snapshot, rows: slice) -> pa.Table:
    return stages.snapshot_shard(
        taken.keys[rows],
        taken.ids[rows],
        taken.digests[rows],
        taken.attributes_json[rows],
        taken.reference[rows],
        taken.descriptors[rows],
    )
