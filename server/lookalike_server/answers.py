"""What a collection is asked and what it answers: frozen values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lookalike_server.rows import Row

Place = tuple[float, str]
"""Score and id of a hit: hits are in descending order of scores, then in the order of ids."""


@dataclass(frozen=True)
class Ask:
    """What all queries of a search ask for."""

    k: int
    """Most hits of a query, at least 1; most groups with `group_by`."""
    where: str = ""
    """Filter on attributes; "" means all items."""
    min_score: float | None = None
    """Least score of a hit."""
    every: bool = False
    """All hits of at least `min_score` instead of the nearest ones; `k` still bounds them."""
    group_by: str = ""
    """Path of an attribute: of items with equal values only the nearest `group_size` are hits."""
    group_size: int = 1
    exact: bool = False
    """Compare with every item, even where there is an approximate index."""
    after: Place | None = None
    """Only hits that come after this place."""
    passed: int = 0
    """About how many hits come before that place: how deep to look at once."""


class Hit(NamedTuple):
    """An item that a query found. `score` is the cosine, -1..1; `group_json` the value it is grouped by."""

    id: str
    score: float
    attributes_json: str
    group_json: str = ""

    @property
    def place(self) -> Place:
        return self.score, self.id


class Account(NamedTuple):
    """How a search went."""

    plan: str = ""
    """In words."""
    items: int = 0
    """Items of the collection."""
    fitting: int = 0
    """Those that the filter leaves."""
    compared: int = 0
    """Descriptors that each query was compared with."""
    queries: int = 0
    """Queries that were searched in the same pass, those of other callers included."""
    filter_seconds: float = 0.0
    scan_seconds: float = 0.0
    rows_seconds: float = 0.0
    """Reading the hits' ids and attributes, and choosing among them."""


@dataclass(frozen=True)
class SearchResult:
    """The hits of each query, nearest first, and the sequence number of the last write that was seen."""

    sequence: int
    hits: list[list[Hit]]
    more: list[bool]
    """For each query, whether there are hits beyond those given."""
    account: Account = field(default_factory=Account)


@dataclass(frozen=True)
class Snapshot:
    """All items of one state, by ascending sequence numbers; row i of each list is one item.

    `keys` are their own sequence numbers int64 [n]; `reference` says which fit the second filter, bool [n].
    """

    sequence: int
    keys: NDArray[np.int64]
    ids: list[str]
    descriptors: NDArray[np.float32]
    digests: list[bytes]
    attributes_json: list[str]
    reference: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        sequence: int,
        keys: NDArray[np.int64],
        rows: Sequence[Row],
        descriptors: NDArray[np.float32],
        reference: NDArray[np.bool_],
    ) -> Self:
        ids, digests = [row.id for row in rows], [row.digest for row in rows]
        attributes = [row.attributes_json for row in rows]
        return cls(sequence, keys, ids, descriptors, digests, attributes, reference)
