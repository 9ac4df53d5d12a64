"""What the engine tells of itself: events to observers, and numbers to whoever asks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lookalike_server.cache import CacheStatistics
from lookalike_server.jobs import Batch, Job

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImageDone:
    """The end of one image's road through one model.

    Attributes:
        recipe_group: the recipes of its model, joined by commas.
        origin: "computed", "cached", "shared" or "dropped".
        reason: why it failed, a reason of docs/api.md; "" when it did not.
        decode_s, queue_s, device_s: seconds of each stage; 0 where it did not go.
        bytes: that it held on the road.
    """

    recipe_group: str
    origin: str
    reason: str
    bulk: bool
    decode_s: float
    queue_s: float
    device_s: float
    bytes: int


@dataclass(frozen=True, slots=True)
class BatchDone:
    """One pass of the device.

    Attributes:
        released: why no more images were taken: "drained", "full", "efficient", "deadline" or "shared"
            (jobs.Batch).
    """

    recipe_group: str
    images: int
    released: str
    seconds: float
    failed: bool


class Observer(Protocol):
    """Is told in the engine's event loop, and must not block. What it raises is logged and forgotten."""

    def image_done(self, image: ImageDone) -> None: ...
    def batch_done(self, batch: BatchDone) -> None: ...
    def refused(self, reason: str, images: int) -> None:
        """At the door, before anything was done."""


@dataclass(frozen=True)
class Statistics:
    """A moment of an engine. Totals count from its start.

    Attributes:
        images, bytes: on the road now.
        waiting: images by stage ("decode", "device") and lane ("interactive", "bulk"), now.
        done: images by origin; those that failed under "failed".
        failed, refused: images by reason.
        batches: passes of the device by why they were released.
        restarts: of stages that had died, by name.
    """

    images: int
    bytes: int
    waiting: Mapping[tuple[str, str], int]
    done: Mapping[str, int]
    failed: Mapping[str, int]
    refused: Mapping[str, int]
    batches: Mapping[str, int]
    cache: CacheStatistics
    restarts: Mapping[str, int]


@dataclass
class Tally:
    """Counts, and tells the observers. It belongs to the engine's event loop."""

    observers: list[Observer] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    batches: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)

    def image(self, job: Job) -> None:
        outcome = job.outcome
        reason = outcome.error.reason if outcome.error is not None else ""
        failed = reason and outcome.origin != "dropped"
        self.done["failed" if failed else outcome.origin] += 1
        if failed:
            self.failed[reason] += 1
        if self.observers:
            times = outcome.decode_s, outcome.queue_s, outcome.device_s
            done = ImageDone(job.model.group, outcome.origin, reason, job.call.bulk, *times, bytes=job.size)
            self._tell(lambda observer: observer.image_done(done))

    def batch(self, batch: Batch) -> None:
        self.batches[batch.released] += 1
        done = BatchDone(
            batch.model.group,
            len(batch.jobs),
            batch.released,
            batch.seconds,
            batch.error is not None,
        )
        self._tell(lambda observer: observer.batch_done(done))

    def refused(self, reason: str, images: int) -> None:
        self.refusals[reason] += images
        self._tell(lambda observer: observer.refused(reason, images))

    def _tell(self, event: Callable[[Observer], Any]) -> None:
        for observer in self.observers:
            try:
                event(observer)
            except Exception:
                _log.exception("an observer of the engine failed")
