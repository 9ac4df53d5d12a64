"""What a report says: the groups, the counts that add up, and one row for each photo."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from lookalike.records import DuplicateGroup, DuplicateMember, Failure, share_interval


@dataclass(frozen=True)
class Photo:
    """One member of a group, as every report shows it. What its attributes do not tell is None."""

    id: str
    path: Path | None  # where the file is on this machine
    similarity: float  # to the representative, -1..1
    identical: bool  # the same file, byte for byte, as the representative's
    same_pixels: bool  # the same picture, pixel for pixel; an identical file too
    representative: bool
    width: int | None
    height: int | None
    bytes: int | None
    modified: datetime | None
    protected: bool = False
    """Of the reference, which nothing is ever moved from."""

    @property
    def action(self) -> str:
        """What the report proposes: to "keep" the representative and to "move" the others away."""
        return "keep" if self.representative else "move"


@dataclass(frozen=True)
class Report:
    """Groups of near-duplicates and what is known about the search that found them.

    Of `photos_seen`, the unreadable ones, the redundant ones and those that are kept are the three parts:
    `photos_seen == kept + redundant + len(unreadable)`.
    """

    groups: Sequence[DuplicateGroup]
    paths: Mapping[str, Path]
    """Where an item's file is on this machine; an item without one is shown without its picture."""
    photos_seen: int
    """Files that were looked at, the unreadable ones included."""
    unreadable: Sequence[Failure] = ()
    same_pixels: Set[str] = frozenset()
    """Ids of members that have the pixels of their representative in another file: see `same_pixels()`."""
    sources: Sequence[str] = ()
    """The folders that were searched, as the user named them."""
    recipe: str = ""
    threshold: float | None = None
    policy: str = ""
    against: Sequence[str] = ()
    """The folders whose photos are the reference; empty where there was none."""
    precision: float | None = None
    """Asked for in place of a threshold."""
    reached: tuple[float, float, float] | None = None
    """The precision of pairs with its 95 % interval, by the collection's calibration: at the highest score it
    knows that is not over the threshold. None where there is none."""
    sampled: tuple[int, int] | None = None
    """What an exact sample says of the search: (found, pairs), it found so many of so many pairs. None when
    every pair was compared."""
    split: int = 0
    """Photos that only a chain of copies joins to a group: they are not alike to its representative, and
    belong to another group or to none."""
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def recall(self) -> tuple[float, float, float] | None:
        """Of the search, by its sample, with its 95 % interval; None when every pair was compared."""
        if self.sampled is None:
            return None
        found, pairs = self.sampled
        return found / pairs, *share_interval(found, pairs)

    @cached_property
    def redundant(self) -> int:
        """Photos that are in a group and do not represent it."""
        return sum(len(group.members) - 1 for group in self.groups)

    @property
    def kept(self) -> int:
        """Photos that are left when the redundant ones go."""
        return self.photos_seen - self.redundant - len(self.unreadable)

    @cached_property
    def bytes_freed(self) -> int:
        """Bytes of the redundant photos, as far as they are known."""
        return sum(
            photo.bytes or 0
            for group in self.groups
            for photo in self.photos(group)
            if not photo.representative
        )

    def photos(self, group: DuplicateGroup) -> Iterator[Photo]:
        """The rows of one group: the representative first, then nearest first."""
        for member in group.members:
            yield self._photo(member, member.id == group.representative_id)

    def _photo(self, member: DuplicateMember, representative: bool) -> Photo:
        attributes = member.attributes
        return Photo(
            id=member.id,
            path=self.paths.get(member.id),
            similarity=member.score,
            identical=member.exact,
            same_pixels=member.exact or member.id in self.same_pixels,
            representative=representative,
            width=_count(attributes.get("width")),
            height=_count(attributes.get("height")),
            bytes=_count(attributes.get("bytes")),
            modified=_moment(attributes.get("modified")),
            protected=bool(self.against) and representative,
        )


def _count(value: object) -> int | None:
    """A whole number from attributes that anybody may have written."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if value >= 0 else None


def _moment(value: object) -> datetime | None:
    """A time from POSIX seconds that anybody may have written."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError, ValueError):
        return None
