"""Where jobs end, who is told, and what becomes of those whose device hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lookalike_extractor.errors import ImageError, LookalikeError
from lookalike_extractor.images import ImageLimits

from lookalike_server.admission import Room
from lookalike_server.cache import ResultCache
from lookalike_server.door import read_header
from lookalike_server.errors import DeadlineUnreachable, DecodeStalled, DeviceStalled, InternalError
from lookalike_server.jobs import Batch, Call, Job
from lookalike_server.readiness import Readiness
from lookalike_server.replicas import Replica
from lookalike_server.served import Runner
from lookalike_server.stages import Stages
from lookalike_server.statistics import Tally
from lookalike_server.supervised import forever
from lookalike_server.wire import internal

if TYPE_CHECKING:
    from lookalike_server.gpu_decoding import GpuDecoder

# How often the device is looked at, how much longer than expected a batch may take before it is taken to
# hang, and after how many times that long the process gives itself up.
_LOOK_SECONDS = 0.25
_TIMES_EXPECTED = 20
_TIMES_LOST = 5
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
        devices: Sequence[Runner],
        room: Room,
        cache: ResultCache,
        tally: Tally,
        *,
        limits: ImageLimits,
        max_batch: int,
        decode_threads: int,
        stall_seconds: float,
        gpu_decoder: GpuDecoder | None = None,
    ) -> None:
        self.broken = asyncio.Event()
        self.stages = Stages(
            devices,
            cache,
            self,
            self._post,
            limits=limits,
            max_batch=max_batch,
            decode_threads=decode_threads,
            gpu_decoder=gpu_decoder,
        )
        self._limits = limits
        self._room, self._cache, self._tally = room, cache, tally
        self._stall_seconds = stall_seconds
        self._watch: asyncio.Task[None] | None = None
        self._sent = 0

    async def start(self, readiness: Readiness) -> None:
        """Returns once the replicas are warm. Raises what their models raise.

        Args:
            readiness: is told what comes through, and what does not.
        """
        self._loop, self._readiness = asyncio.get_running_loop(), readiness
        warm: asyncio.Queue[BaseException | None] = asyncio.Queue()
        self.stages.start(readiness.models, warm.put_nowait)
        for _ in self.stages.replicas:
            if (error := await warm.get()) is not None:
                raise error
        self._watch = self._loop.create_task(forever(self._look))

    async def close(self) -> None:
        """Ends the stages once they have done what is on the road."""
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.to_thread(self.stages.join)

    def send(self, call: Call, jobs: Sequence[Job]) -> None:
        """Sends the jobs of a call on their way; those with a wrong header end at once.

        What is sent in one turn of the loop wakes the decoders once, and so is decoded together.
        """
        for job in jobs:
            read_header(job, self._limits)
        if not call.bulk and not call.probe:
            self.stages.interactive_at = time.monotonic()
        good = [job for job in jobs if job.outcome.error is None]
        self.stages.arrived.put(good, wake=False)
        if good and not self._sent:
            self._loop.call_soon(self._wake)
        self._sent += len(good)
        for job in jobs:
            if job.outcome.error is not None:
                self.end(job)

    def _wake(self) -> None:
        self.stages.arrived.wake(self._sent)
        self._sent = 0

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
            self._readiness.good(batch.model, batch.replica)
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
        hanging = [self._hangs(replica) for replica in self.stages.replicas]
        if all(hanging):
            self.broken.set()

    def _replace_decoders(self) -> None:
        for name, job in self.stages.decoding.replace_hanging(self._stall_seconds).items():
            self._tally.restarts[name] += 1
            self._fail(
                job, DecodeStalled(f"Decoding took more than {self._stall_seconds:g} s. Send another.")
            )
        if self.stages.decoding.left_behind() > _MOST_LEFT_BEHIND:
            self.broken.set()

    def _hangs(self, replica: Replica) -> bool:
        """Looks at a replica; whether it has been silent for so long that it will not come back."""
        running = replica.running
        late = time.monotonic() - running[0].started if running else 0.0
        if running and late > self._allowed(running[0]):
            self._give_up(replica, running, late)
            return late > _TIMES_LOST * self._allowed(running[0])
        if replica.trouble.silent:
            replica.set_silent("")
            self._readiness.suspect()
        return bool(replica.trouble.lost)

    def _allowed(self, batch: Batch) -> float:
        expected = batch.model.cost.seconds(len(batch.jobs))
        return max(self._stall_seconds, _TIMES_EXPECTED * expected)

    def _give_up(self, replica: Replica, running: Sequence[Batch], late: float) -> None:
        """Answers all who wait for the replica, and where it is the last one all who wait for any.

        Should it come back, what it then says is not listened to.
        """
        for batch in running:
            batch.model.give_up(replica.number)
        replica.set_silent(f"the device has been silent for {late:.0f} s")
        self._readiness.tell()
        waiting = [job for batch in running for job in (*batch.jobs, *batch.dropped)]
        waiting += self.stages.decoded.clear_own(replica.taker)
        if self._readiness.stalled:
            waiting += self.stages.decoded.clear()
        fault = DeviceStalled(f"The device has been silent for {late:.0f} s. Try again in a while.")
        for job in waiting:
            self._fail(job, fault)

    def _post(self, function: object, *arguments: object) -> None:
        self._loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]
