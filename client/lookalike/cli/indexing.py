"""A collection brought up to date with files: what is new or changed is sent, nothing else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from lookalike import Collection
from lookalike.cli.meter import meter
from lookalike.cli.output import plural
from lookalike.cli.photos import Photo
from lookalike.records import Failure


@dataclass(frozen=True, slots=True)
class Outcome:
    added: int
    unchanged: int
    removed: int
    failed: tuple[Failure, ...]
    seconds: float

    def __str__(self) -> str:
        rate = f" in {self.seconds:.1f} s ({self.added / self.seconds:.1f} photos/s)" if self.added else ""
        unchanged = f", {self.unchanged:,} unchanged" if self.unchanged else ""
        removed = f", {self.removed:,} no longer there" if self.removed else ""
        return f"indexed {plural(self.added, 'photo')}{rate}{unchanged}{removed}"


def bring_up_to_date(collection: Collection, photos: Sequence[Photo], *, forget_others: bool) -> Outcome:
    """Sends the photos that the collection does not have as they are now.

    An item whose file has changed into something unreadable is deleted, and with `forget_others` every item
    that is not among `photos`.
    """
    start = time.monotonic()
    known = {item.id: item.attributes for item in collection.items()}
    changed = [p for p in photos if p.id not in known or not p.is_unchanged_since(known[p.id])]
    with meter("indexing", len(changed), "photos") as advance:
        report = collection.add(
            [photo.path for photo in changed],
            ids=[photo.id for photo in changed],
            attributes=(photo.attributes() for photo in changed),
            progress=lambda progress: advance(progress.done, len(changed)),
        )
    gone = {failure.id for failure in report.failed}
    if forget_others:
        gone |= set(known) - {photo.id for photo in photos}
    removed = collection.delete(sorted(gone & set(known)))
    unchanged = len(photos) - len(changed)
    return Outcome(report.added, unchanged, removed, report.failed, time.monotonic() - start)
