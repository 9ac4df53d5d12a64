"""Searches for near-duplicates, and what they find."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lookalike.records.record import Attributes, Record


@dataclass(frozen=True, slots=True, repr=False)
class DuplicateJob(Record):
    """How far a search for near-duplicates is."""

    id: str
    collection: str
    threshold: float
    policy: str
    """One of "largest", "oldest", "most_connected", "sharpest", or "max:" or "min:" and an attribute."""
    state: str
    """One of "pending", "running", "succeeded", "failed" or "cancelled"."""
    items_done: int
    items_total: int
    pairs_found: int
    group_count: int
    sequence: int
    sampled_pairs: int = 0
    """Above 50,000 different images only likely pairs are compared; then an exact search of a sample found so
    many pairs. 0 when every pair was compared."""
    sampled_pairs_found: int = 0
    """Those of `sampled_pairs` that the job found too: their ratio estimates its recall."""
    remaining: float | None = None
    """Seconds that it will still take, as it looks now; None while that is unknown."""
    precision: float | None = None
    """What was asked for in place of a threshold; None where a threshold was."""
    where: str = ""
    since_sequence: int = 0
    reference: str = ""
    created: datetime | None = None
    ended: datetime | None = None
    error: str = ""
    """Why it failed."""
    split_count: int = 0
    """Items that are alike to others of a group, as links of a chain are, but not to its representative: they
    were kept out of it, and are in another group or in none."""

    def recall(self) -> tuple[float, float] | None:
        """The 95 % interval of the search's recall, by its sample; None when every pair was compared."""
        return share_interval(self.sampled_pairs_found, self.sampled_pairs) if self.sampled_pairs else None


def share_interval(part: int, whole: int) -> tuple[float, float]:
    """The 95 % interval of a share that was sampled: Wilson, "Probable inference", JASA 22, 1927."""
    z2 = 1.96**2
    share, weight = part / whole, 1 + z2 / whole
    middle = (share + z2 / (2 * whole)) / weight
    reach = 1.96 / weight * (share * (1 - share) / whole + z2 / (4 * whole**2)) ** 0.5
    return max(0.0, middle - reach), min(1.0, middle + reach)


@dataclass(frozen=True, slots=True, repr=False)
class DuplicateMember(Record):
    """One item of a group of near-duplicates."""

    id: str
    score: float
    """Similarity to the group's representative; 1 for the representative itself."""
    exact: bool
    """Whether its file is the representative's, byte for byte."""
    attributes: Attributes


@dataclass(frozen=True, slots=True, repr=False)
class DuplicateGroup(Record):
    """Items that show the same picture: the representative (worth keeping) first, then nearest first."""

    representative_id: str
    members: tuple[DuplicateMember, ...]


@dataclass(frozen=True, slots=True, repr=False)
class DuplicateMatch(Record):
    """An item that a picture is a copy of."""

    id: str
    score: float
    exact: bool
    """Whether its file is the picture's, byte for byte."""
    attributes: Attributes


@dataclass(frozen=True, slots=True, repr=False)
class DuplicateCheck(Record):
    """What a picture is a copy of; true when it is a copy of anything."""

    matches: tuple[DuplicateMatch, ...]
    """Nearest first, at most 10."""
    threshold: float
    sequence: int
    """Number of the write that added it, or of the last write that was seen."""
    added: bool = False
    """Whether it was written: never by `check_duplicate`."""

    def __bool__(self) -> bool:
        return bool(self.matches)
