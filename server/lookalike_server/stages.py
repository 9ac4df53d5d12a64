"""The threads of the engine: decoders (decoding.py) and replicas (replicas.py), each going on whatever comes.

    arrived ─ decoders: digest, known already?, decode ─ decoded ─ replicas: each one batch after the other

A thread that is thrown out of its work is back at once; the jobs it had in hand are handed to the event loop
with the error, and so is everything that ends here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from lookalike_extractor.images import ImageLimits

from lookalike_server.batcher import Line
from lookalike_server.cache import ResultCache
from lookalike_server.costs import SMALLEST
from lookalike_server.decoding import Decoding
from lookalike_server.jobs import Batch, Job
from lookalike_server.replicas import Replica, names_of, rests
from lookalike_server.served import Model, Runner
from lookalike_server.supervised import Stage

if TYPE_CHECKING:
    from lookalike_server.gpu_decoding import GpuDecoder

# Batches give so much of the most images a second, and have at least so many images if they wait: small ones
# cost more beside all else that goes on than a line through what was learned tells, and it is how many are
# done in a second that says how long a caller in a line waits (Little's law).
_SHARE, _LEAST = 0.95, 8
# While interactive callers are about, who wait for the batch that runs, a batch of bulk takes only so many
# times as long as the smallest, or so long.
_TIMES_BESIDE_INTERACTIVE, _SECONDS_BESIDE_INTERACTIVE = 1.25, 0.010
_ABOUT_SECONDS = 10.0
# A batch of one costs bulk a quarter of its images a second, which is too much for a caller who came once.
_JUST_NOW_SECONDS = 1.0
# Now and then a batch is so many times as large: what is efficient is learned from sizes that differ.
_LARGER, _LARGER_EACH = 4, 16
_HANGING_JOIN_SECONDS = 1.0


class Ends(Protocol):
    """Who is told, in the event loop, of what ends in the stages."""

    def images_ended(self, jobs: list[Job]) -> None: ...
    def batch_ended(self, batch: Batch) -> None: ...
    def stage_failed(self, name: str, jobs: list[Job], error: BaseException) -> None: ...


class Stages:
    """Args:
    devices: one for each replica.
    post: calls a function with an argument in the event loop.
    """

    def __init__(
        self,
        devices: Sequence[Runner],
        cache: ResultCache,
        ends: Ends,
        post: Callable[..., object],
        *,
        limits: ImageLimits,
        max_batch: int,
        decode_threads: int,
        gpu_decoder: GpuDecoder | None = None,
    ) -> None:
        self.decoded = Line()
        self._ends, self._post, self._max_batch = ends, post, max_batch
        self._asked = 0
        self.interactive_at = -_ABOUT_SECONDS
        """When an interactive image was last let in, by the monotonic clock."""
        self.decoding = Decoding(
            cache,
            limits,
            decode_threads,
            ready=self.decoded.put,
            ended=lambda jobs: post(ends.images_ended, jobs),
            failed=self._failed,
            gpu=gpu_decoder,
        )
        self.arrived = self.decoding.line
        self.replicas = [
            Replica(
                number,
                name,
                device,
                self.decoded,
                rests=lambda replica: rests(replica, self.replicas),
                ended=lambda batch: post(ends.batch_ended, batch),
                failed=self._failed,
            )
            for number, (name, device) in enumerate(zip(names_of(devices), devices, strict=True))
        ]
        self.decoded.enrol(replica.taker for replica in self.replicas)

    def start(self, models: Sequence[Model], warm: Callable[[BaseException | None], None]) -> None:
        """Starts the threads; `warm` is called in the event loop for each replica, with why it is not."""
        for replica in self.replicas:
            replica.start(self._max_batch, self, models, lambda error: self._post(warm, error))
        self.decoding.start()

    def join(self) -> None:
        """Ends the threads once what is on the road is done, and leaves those that hang."""
        gone = [replica.trouble.gone for replica in self.replicas]
        self.decoding.join(_HANGING_JOIN_SECONDS if all(gone) else None)
        self.decoded.close()
        for replica in self.replicas:
            replica.join(_HANGING_JOIN_SECONDS if replica.trouble.gone else None)

    def waiting(self) -> dict[tuple[str, str], int]:
        """Images before each stage, by lane."""
        lines: dict[str, Decoding | Line] = {"decode": self.decoding, "device": self.decoded}
        return {
            (stage, lane): line.waiting(bulk=lane == "bulk")
            for stage, line in lines.items()
            for lane in ("interactive", "bulk")
        }

    def working(self) -> list[Replica]:
        """Those that take what waits."""
        return [replica for replica in self.replicas if not rests(replica, self.replicas)]

    def seconds_for(self, images: Mapping[Model, int]) -> float:
        """How long the replicas take at the least for so many interactive images, behind those that wait."""
        working, ahead = self.working(), dict(images)
        for stage in (self.arrived, self.decoding, self.decoded):
            for model, count in stage.by_model(bulk=False).items():
                ahead[model] = ahead.get(model, 0) + count
        work = sum(self._in_batches(model, count) for model, count in ahead.items())
        left = sum(replica.seconds_left() for replica in working)
        longest = max(model.cost.seconds(1) for model in images)
        return max((work + left) / len(working), longest)

    def _in_batches(self, model: Model, images: int) -> float:
        """Seconds of so many images, in batches as they are made."""
        return model.cost.seconds_in_batches(images, min(self._max_batch, self.efficient(model, bulk=False)))

    def efficient(self, model: Model, *, bulk: bool) -> int:
        """The size over which a batch only keeps everybody waiting for longer."""
        cost = model.cost
        if bulk and self._interactive_within(_ABOUT_SECONDS):
            least = cost.smallest if self._interactive_within(_JUST_NOW_SECONDS) else SMALLEST
            short = max(_TIMES_BESIDE_INTERACTIVE * cost.seconds(least), _SECONDS_BESIDE_INTERACTIVE)
            return max(least, min(cost.efficient(_SHARE), cost.within(short)))
        return cost.efficient(_SHARE, _LEAST)

    def largest(self, model: Model, *, bulk: bool) -> int:
        """The efficient size; now and then a larger one, where it keeps no interactive caller waiting."""
        size = self.efficient(model, bulk=bulk)
        if bulk and self._interactive_within(_ABOUT_SECONDS):
            return size
        self._asked += 1
        return size if self._asked % _LARGER_EACH else size * _LARGER

    def _interactive_within(self, seconds: float) -> bool:
        return time.monotonic() - self.interactive_at < seconds

    def seconds(self, model: Model, images: int) -> float:
        """Of a batch of so many."""
        return model.cost.seconds(images)

    def within(self, model: Model, seconds: float) -> int:
        """The size that can be computed in so many seconds."""
        return model.cost.within(seconds)

    def _failed(self, stage: Stage, error: BaseException) -> None:
        self._post(self._ends.stage_failed, stage.name, list(stage.hand), error)
