"""The threads of the engine: decoders (decoding.py) and the device, each going on whatever happens in it.

    arrived ─ decoders: digest, known already?, decode ─ decoded ─ device: one batch after the other

A thread that is thrown out of its work is back at once; the jobs it had in hand are handed to the event loop
with the error, and so is everything that ends here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from lookalike_extractor.images import ImageLimits, Preprocessing
from lookalike_extractor.recipe import Space
from numpy.typing import NDArray

from lookalike_server.batcher import Line
from lookalike_server.cache import ResultCache
from lookalike_server.costs import Cost
from lookalike_server.decoding import Decoding
from lookalike_server.jobs import Batch, Job
from lookalike_server.supervised import Stage
from lookalike_server.wire import internal

# Bulk runs in batches that give so much of the most images a second; while interactive callers are about in
# such as keep them waiting for less.
_SHARE, _SHARE_BESIDE_INTERACTIVE = 0.95, 0.75
_LEAST_BULK = 4
# What a batch of the trial at the start tells of sizes, in other batches.
_TRIAL_WEIGHT = 20
_ABOUT_SECONDS = 10.0


class Model(Protocol):
    """What the engine needs to know of a model (lookalike_extractor.DescriptorModel)."""

    spaces: dict[str, Space]
    preprocessing: Preprocessing


class Runner(Protocol):
    """What the engine needs of a device (device.Device)."""

    @property
    def name(self) -> str: ...
    @property
    def models(self) -> Sequence[Model]: ...
    @property
    def runtimes(self) -> Sequence[str]: ...
    def warm_up(self) -> Sequence[Sequence[tuple[int, float]]]: ...
    def usable(self) -> bool: ...
    def run(self, model: int, pixels: Sequence[NDArray[np.uint8]]) -> dict[str, NDArray[np.float32]]: ...


class Ends(Protocol):
    """Who is told, in the event loop, of what ends in the stages."""

    def images_ended(self, jobs: list[Job]) -> None: ...
    def batch_ended(self, batch: Batch) -> None: ...
    def stage_failed(self, name: str, jobs: list[Job], error: BaseException) -> None: ...
    def device_lost(self) -> None: ...


class Stages:
    """Args:
    post: calls a function with an argument in the event loop.
    """

    def __init__(
        self,
        device: Runner,
        cache: ResultCache,
        ends: Ends,
        post: Callable[..., object],
        *,
        limits: ImageLimits,
        max_batch: int,
        decode_threads: int,
    ) -> None:
        self.decoded = Line()
        self.costs = [Cost() for _ in device.models]
        self.running: Batch | None = None
        """What the device computes at this moment."""
        self._device, self._ends, self._post, self._max_batch = device, ends, post, max_batch
        self.interactive_at = -_ABOUT_SECONDS
        """When an interactive image was last let in, by the monotonic clock."""
        self._warm: Callable[[BaseException | None], None] | None = None
        self.decoding = Decoding(
            [model.preprocessing for model in device.models],
            cache,
            limits,
            decode_threads,
            ready=self.decoded.put,
            ended=lambda jobs: post(ends.images_ended, jobs),
            failed=self._failed,
        )
        self.arrived = self.decoding.line
        self._computer = Stage("device", self._device_turn, self._failed)

    def start(self, warm: Callable[[BaseException | None], None]) -> None:
        """Starts the threads; `warm` is called in the event loop once the device is, or with why not."""
        self._warm = warm
        self._computer.start()
        self.decoding.start()

    def join(self, seconds: float | None) -> None:
        """Ends the threads once what is on the road is done, or the time has passed."""
        self.decoding.join(seconds)
        self.decoded.close()
        self._computer.join(seconds)

    def waiting(self) -> dict[tuple[str, str], int]:
        """Images before each stage, by lane."""
        lines = {"decode": self.arrived, "device": self.decoded}
        return {
            (stage, lane): line.waiting(bulk=lane == "bulk")
            for stage, line in lines.items()
            for lane in ("interactive", "bulk")
        }

    def seconds_left(self) -> float:
        """Of the batch that is running."""
        batch = self.running
        if batch is None:
            return 0.0
        return max(0.0, self.costs[batch.model].seconds(len(batch.jobs)) - (time.monotonic() - batch.started))

    def seconds_in_batches(self, model: int, images: int) -> float:
        """Of so many images, in batches as they are made."""
        cost = self.costs[model]
        return cost.seconds_in_batches(images, min(self._max_batch, cost.efficient(_SHARE)))

    def efficient(self, model: int, *, bulk: bool) -> int:
        """The size over which a batch only keeps everybody waiting for longer."""
        beside = bulk and time.monotonic() - self.interactive_at < _ABOUT_SECONDS
        least = _LEAST_BULK if bulk and not beside else 2
        return self.costs[model].efficient(_SHARE_BESIDE_INTERACTIVE if beside else _SHARE, least)

    def soonest(self, model: int) -> float:
        """The seconds that one image takes."""
        return self.costs[model].seconds(1)

    def within(self, model: int, seconds: float) -> int:
        """The size that can be computed in so many seconds."""
        return self.costs[model].within(seconds)

    def _failed(self, stage: Stage, error: BaseException) -> None:
        self.running = None
        self._post(self._ends.stage_failed, stage.name, list(stage.hand), error)

    def _device_turn(self, stage: Stage) -> bool:
        if self._warm is not None:
            return self._warm_up()
        batch = self.decoded.take_batch(self._max_batch, self)
        if batch is None:
            return False
        stage.hand = batch.jobs + batch.dropped
        if batch.jobs:
            self._compute(batch)
        stage.hand = []
        self._post(self._ends.batch_ended, batch)
        return True

    def _warm_up(self) -> bool:
        warm, self._warm = self._warm, None
        assert warm is not None  # this is the first turn
        try:
            for cost, tried in zip(self.costs, self._device.warm_up(), strict=False):
                for n, seconds in tried:
                    cost.learn(n, seconds, _TRIAL_WEIGHT)
        except BaseException as error:
            self._post(warm, error)
            return False
        self._post(warm, None)
        return True

    def _compute(self, batch: Batch) -> None:
        batch.started, self.running = time.monotonic(), batch
        try:
            pixels = [job.pixels for job in batch.jobs if job.pixels is not None]
            batch.descriptors = self._device.run(batch.model, pixels)
            batch.finite = _finite(batch)
        except BaseException as error:
            batch.error = internal(error)
            if not self._device.usable():
                self._post(self._ends.device_lost)
        self.running = None
        batch.seconds = time.monotonic() - batch.started
        if batch.error is None:
            self.costs[batch.model].learn(len(batch.jobs), batch.seconds)


def _finite(batch: Batch) -> NDArray[np.bool_]:
    """[n], of each image whether all its numbers are finite. Raises RuntimeError when rows are missing."""
    finite = np.ones(len(batch.jobs), bool)
    for recipe, rows in batch.descriptors.items():
        if len(rows) != len(finite):
            raise RuntimeError(f"the model answered {len(rows)} rows for {len(finite)} images ({recipe})")
        finite &= np.isfinite(rows).all(axis=1)
    return finite
