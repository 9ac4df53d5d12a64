"""What searches find, and what their scores mean."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lookalike.records.record import Attributes, Record


@dataclass(frozen=True, slots=True, repr=False)
class Hit(Record):
    """One item that a query found."""

    id: str
    score: float
    attributes: Attributes
    group: str | float | bool | None = None
    """Value of the attribute that hits are grouped by."""


@dataclass(frozen=True, slots=True, repr=False)
class Explanation(Record):
    """How a search went."""

    plan: str
    items: int
    fitting: int
    """Items that the filter leaves."""
    compared: int
    """Descriptors that each query was compared with."""
    queries: int
    """Queries searched in one pass, those of other callers included."""
    queries_seconds: float
    """Until the queries' descriptors were there; the others follow it."""
    wait_seconds: float
    filter_seconds: float
    scan_seconds: float
    rows_seconds: float


class Hits(list[Hit]):
    """The hits of one query, nearest first."""

    more: bool = False
    """Whether there are hits beyond these."""
    sequence: int = 0
    """Number of the last write that the search saw."""
    explanation: Explanation | None = None
    """Where it was asked for."""


@dataclass(frozen=True, slots=True, repr=False)
class Threshold(Record):
    """What is known of the least score for one precision: as it was learned, and the score in force now.

    Intervals are of 95 %.
    """

    precision: float
    min_score: float | None
    """As it was learned; None when no score reaches the precision."""
    min_score_low: float | None
    min_score_high: float | None
    """The interval of `min_score`, by drawing pictures again; None where no score reached the precision."""
    reached: float
    """Precision of the pairs at or over `min_score`."""
    reached_low: float
    reached_high: float
    recall: float
    """Share of the pairs of the same picture that are at or over `min_score`."""
    current_score: float | None
    """What searches and jobs take now: more than `min_score` once the collection has grown; None when no
    score reaches the precision any more."""


@dataclass(frozen=True, slots=True, repr=False)
class Calibration(Record):
    """Which score means which precision in a collection."""

    collection: str
    thresholds: tuple[Threshold, ...]
    """By ascending precision."""
    same_pairs: int
    different_pairs: int
    missed_pairs: int
    """Pairs of the same picture that the search did not return."""
    item_count: int
    """Items of the collection when it was set."""
    created: datetime
    normalized: bool = False
    """Whether it is of searches with `normalize`."""
    current_item_count: int = 0
    """Items of the collection now, for which the thresholds' `current_score` holds."""
