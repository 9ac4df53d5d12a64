"""Who is let in: room for the images, time enough before the deadline, and headers that say no wrong."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from lookalike_extractor.errors import LookalikeError, PixelLimit
from lookalike_extractor.images import ImageLimits, sniff

from lookalike_server.admission import Room
from lookalike_server.costs import Margin
from lookalike_server.errors import DeadlineUnreachable, DeviceStalled, Draining, QueueFull
from lookalike_server.jobs import Call, Job
from lookalike_server.readiness import Readiness
from lookalike_server.stages import Stages
from lookalike_server.wire import internal

_LEAST_PATIENCE, _MOST_PATIENCE = 0.02, 5.0
_UNKNOWN_SECONDS = 0.01


class Door:
    """Admits calls, or refuses them at once with a time to come back. It belongs to one event loop.

    Attributes:
        draining: set it to refuse all.
    """

    def __init__(self, room: Room, stages: Stages, readiness: Readiness) -> None:
        self.draining = asyncio.Event()
        self._room, self._stages, self._readiness = room, stages, readiness
        # Under overload the line is as long as deadlines allow, and many would come a little too late.
        self._margin = Margin()

    async def admit(self, call: Call, jobs: Sequence[Job]) -> None:
        """Takes room for the jobs; bulk waits for it.

        Raises Draining, DeviceStalled, DeadlineUnreachable, QueueFull.
        """
        size = sum(job.size for job in jobs)
        if call.probe:
            self._room.force(len(jobs), size, call.client)
            return
        if self.draining.is_set():
            raise Draining("The server is stopping; ask another one, or this one in a while.")
        if self._readiness.stalled:
            raise DeviceStalled(f"Nothing can be computed: {self._readiness.stalled}. Try again in a while.")
        if call.bulk:
            await self._room.wait(len(jobs), size, call.client)
            return
        self._check_deadline(call, jobs)
        if not self._room.enter(len(jobs), size, call.client):
            raise self._full(jobs)

    def _check_deadline(self, call: Call, jobs: Sequence[Job]) -> None:
        call.admitted, call.predicted = time.monotonic(), self.seconds_until(jobs)
        left, needed = call.deadline - call.admitted, self._margin.times * call.predicted
        if needed >= left:
            raise DeadlineUnreachable(
                f"The answer would take {needed:.2f} s, the deadline leaves {max(left, 0):.2f} s.",
                retry_after_ms=f"{_bounded(needed - left) * 1000:.0f}",
            )

    def learn(self, call: Call) -> None:
        """Takes note of a call that has been answered, or whose deadline has passed."""
        if call.predicted:
            self._margin.learn(call.predicted, time.monotonic() - call.admitted)

    def _full(self, jobs: Sequence[Job]) -> QueueFull:
        """Who comes back when so many images as he sends have been computed finds room for them."""
        seconds = sum(job.model.cost.each or _UNKNOWN_SECONDS for job in jobs)
        patience = _bounded(seconds / len(self._stages.working()))
        return QueueFull(
            f"The queue is full ({self._room.images} images wait). Try again in {patience:.2f} s.",
            retry_after_ms=f"{patience * 1000:.0f}",
        )

    def seconds_until(self, jobs: Sequence[Job]) -> float:
        """How long it takes at the least until interactive jobs that come now are done.

        Decoding and computing overlap: the slower of the two counts. What is not known yet takes no time.
        """
        stages = self._stages
        decoding = stages.decoding.waiting(bulk=False) + len(jobs)
        device = stages.seconds_for(Counter(job.model for job in jobs))
        return max(device, stages.decoding.seconds * decoding / len(stages.decoding))


def read_header(job: Job, limits: ImageLimits) -> None:
    """Looks at an image before anything is done for it; what is wrong becomes its outcome's error."""
    try:
        _read(job, limits)
    except LookalikeError as error:
        job.outcome.error = error
    except Exception as error:
        job.outcome.error = internal(error)


def _read(job: Job, limits: ImageLimits) -> None:
    if isinstance(job.source, bytes):
        job.header = sniff(job.source, limits)
        job.outcome.width, job.outcome.height = job.header.width, job.header.height
        return
    job.outcome.height, job.outcome.width = job.source.shape[:2]
    if job.outcome.width * job.outcome.height > limits.max_pixels:
        raise PixelLimit(
            f"the image has {job.outcome.width} x {job.outcome.height} pixels; "
            f"at most {limits.max_pixels:,} are allowed"
        )


def _bounded(seconds: float) -> float:
    return min(max(seconds, _LEAST_PATIENCE), _MOST_PATIENCE)
