"""A search over arrays, for programs and tests: nothing is written anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lookalike_server.answers import Snapshot

from .candidates import Floats
from .clusters import Recall
from .search import Search, Watcher
from .shards import InMemory
from .stages import Asked, Flags


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
    asked: Asked,
    *,
    reference: Sequence[bool] | Flags | None = None,
    watch: Watcher = lambda progress: None,
) -> Duplicates:
    """Finds the groups of near-duplicates among n items; the same groups whatever the items' order.

    ids: unique. descriptors: float32 [n, d], rows of length 1. digests: of the image files' bytes, b"" where
    there was no file. attributes_json: JSON objects. Item i has the sequence number i + 1.
    """
    count = len(ids)
    flags = np.zeros(count, np.bool_) if reference is None else np.asarray(reference, np.bool_)
    numbers = np.arange(1, count + 1)
    items = Snapshot(count, numbers, [*ids], descriptors, [*digests], [*attributes_json], flags)
    shards = InMemory()
    ended = Search(shards, asked, watch).run(lambda: items)
    tables = [shard.table for shard in shards.all("groups")]
    split = sum(shard.facts["split"] for shard in shards.all("groups")[:1])
    return Duplicates(_groups(pa.concat_tables(tables)), ended.pairs, split, ended.recall)


def _groups(table: pa.Table) -> list[Group]:
    groups: dict[int, list[Member]] = {}
    columns = (table.column(name).to_pylist() for name in ("group", "row", "score", "exact"))
    for number, row, score, exact in zip(*columns, strict=True):
        groups.setdefault(number, []).append(Member(row, score, exact))
    return [Group(tuple(members)) for members in groups.values()]
