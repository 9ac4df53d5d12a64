"""Where jobs end, who is told, and what becomes of those whose device hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

from lookalike_extractor.errors import ImageError, LookalikeError
from lookalike_extractor.images import ImageLimits

from lookalike_server.admission import Room
from lookalike_server.cache import ResultCache
from lookalike_server.door import read_header
from lookalike_server.errors import DeadlineUnreachable, DecodeStalled, DeviceStalled, InternalError
from lookalike_server.jobs import Batch, Call, Job
from lookalike_server.readiness import Readiness
from lookalike_server.stages import Runner, Stages
from lookalike_server.statistics import Tally
from lookalike_server.supervised import forever
from lookalike_server.wire import internal

# How often the device is looked at, how much longer than expected a batch may take before it is taken to
# hang, and after how many times that long the process gives itself up.
_LOOK_SECONDS = 0.25
_TIMES_EXPECTED = 20
_TIMES_LOST = 5
_HANGING_JOIN_SECONDS = 1.0
# Threads that hang for good cost little each; so many of them are for a new process to mend.
_MOST_LEFT_BEHIND = 64


class Road:
    """The stages of an engine, and the end of every job. It belongs to one event loop.

    Attributes:
        broken: set once only a new process helps.
        stages: the threads and their lines.
    """

    def __init__(
        self,
        device: Runner,
        room: Room,
        cache: ResultCache,
        tally: Tally,
        readiness: Readiness,
        *,
        limits: ImageLimits,
        max_batch: int,
        decode_threads: int,
        stall_seconds: float,
    ) -> None:
        self.broken = asyncio.Event()
        self.stages = Stages(
            device, cache, self, self._post, limits=limits, max_batch=max_batch, decode_threads=decode_threads
        )
        self._limits = limits
        self._room, self._cache, self._tally, self._readiness = room, cache, tally, readiness
        self._stall_seconds = stall_seconds
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns once the device is warm. Raises what its models raise."""
        self._loop = asyncio.get_running_loop()
        warm: asyncio.Future[None] = self._loop.create_future()

        def done(error: BaseException | None) -> None:
            if not warm.done():
                warm.set_exception(error) if error else warm.set_result(None)

        self.stages.start(done)
        await warm
        self._watch = self._loop.create_task(forever(self._look))

    async def close(self) -> None:
        """Ends the stages once they have done what is on the road."""
        if self._watch is not None:
            self._watch.cancel()
        patience = _HANGING_JOIN_SECONDS if self._readiness.stalled else None
        await asyncio.to_thread(self.stages.join, patience)

    def send(self, call: Call, jobs: Sequence[Job]) -> None:
        """Sends the jobs of a call on their way; those with a wrong header end at once."""
        for job in jobs:
            read_header(job, self._limits)
        if not call.bulk and not call.probe:
            self.stages.interactive_at = time.monotonic()
        self.stages.arrived.put(job for job in jobs if job.outcome.error is None)
        for job in jobs:
            if job.outcome.error is not None:
                self.end(job)

    def end(self, job: Job) -> None:
        """Ends a job, and with it what follows it."""
        if job.finished:
            return
        job.finished = True
        outcome, call = job.outcome, job.call
        if outcome.error is None:
            outcome.digest = job.digest
        followers = self._cache.settle(job)
        self._tally.image(job)
        self._room.leave(1, job.size, call.client)
        call.pending -= 1
        if not call.pending and not call.done.done():
            call.done.set_result(None)
        for follower in followers:
            self._follow(outcome.error, job, follower)

    def _follow(self, fault: LookalikeError | None, leader: Job, job: Job) -> None:
        if fault is None or isinstance(fault, ImageError | DeviceStalled):
            job.digest = leader.digest
            job.outcome.error, job.outcome.descriptors = fault, dict(leader.outcome.descriptors)
            self.end(job)
        else:
            # The leader's caller has left, or its batch failed, which another one may not.
            job.alone = leader.outcome.origin != "dropped"
            job.outcome.origin = "computed"
            self.stages.arrived.put([job])

    # What the stages tell.

    def images_ended(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._drop(job) if job.outcome.origin == "dropped" else self.end(job)

    def batch_ended(self, batch: Batch) -> None:
        for job in batch.dropped:
            self._drop(job)
        if not batch.jobs:
            return
        for row, job in enumerate(batch.jobs):
            if not job.finished:  # otherwise it was given up while the device hung
                self._hand_out(batch, row, job)
        self._tally.batch(batch)
        if batch.finite is not None and batch.finite.any():
            self._readiness.good(batch.model)
        if batch.finite is None or not batch.finite.all():
            self._readiness.suspect()

    def _hand_out(self, batch: Batch, row: int, job: Job) -> None:
        outcome = job.outcome
        outcome.queue_s, outcome.device_s = batch.started - job.ready_at, batch.seconds
        if batch.finite is None:
            outcome.error = batch.error
        elif not batch.finite[row]:
            outcome.error = InternalError("The model's answer to this image is not finite.")
        else:
            outcome.descriptors = {recipe: rows[row] for recipe, rows in batch.descriptors.items()}
        self.end(job)

    def stage_failed(self, name: str, jobs: Iterable[Job], error: BaseException) -> None:
        """A stage was thrown out of its work, and is back."""
        self._tally.restarts[name] += 1
        fault = internal(error)
        for job in jobs:
            self._fail(job, fault)
        self._readiness.suspect()

    def device_lost(self) -> None:
        self.broken.set()

    def _drop(self, job: Job) -> None:
        job.outcome.origin = "dropped"
        self._fail(job, DeadlineUnreachable("The deadline passed before the image was computed."))

    def _fail(self, job: Job, fault: LookalikeError) -> None:
        if not job.finished:
            job.outcome.error = fault
            self.end(job)

    # Threads that hang.

    async def _look(self) -> None:
        await asyncio.sleep(min(_LOOK_SECONDS, self._stall_seconds / 4))
        self._replace_decoders()
        batch = self.stages.running
        late = 0.0 if batch is None else time.monotonic() - batch.started
        if batch is not None and late > self._allowed(batch):
            self._give_up(batch, late)
            if late > _TIMES_LOST * self._allowed(batch):
                self.device_lost()
        elif self._readiness.stalled:
            self._readiness.stalled = ""
            self._readiness.suspect()

    def _replace_decoders(self) -> None:
        for name, job in self.stages.decoding.replace_hanging(self._stall_seconds).items():
            self._tally.restarts[name] += 1
            self._fail(
                job, DecodeStalled(f"Decoding took more than {self._stall_seconds:g} s. Send another.")
            )
        if self.stages.decoding.left_behind() > _MOST_LEFT_BEHIND:
            self.device_lost()

    def _allowed(self, batch: Batch) -> float:
        expected = self.stages.costs[batch.model].seconds(len(batch.jobs))
        return max(self._stall_seconds, _TIMES_EXPECTED * expected)

    def _give_up(self, batch: Batch, late: float) -> None:
        """Answers all who wait for the device. Should it come back, what it then says is not listened to."""
        self._readiness.stalled = f"the device has been silent for {late:.0f} s"
        self._readiness.tell()
        fault = DeviceStalled(f"The device has been silent for {late:.0f} s. Try again in a while.")
        for job in [*batch.jobs, *batch.dropped, *self.stages.decoded.clear()]:
            self._fail(job, fault)

    def _post(self, function: object, *arguments: object) -> None:
        self._loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]
