"""The device threads: each takes batches from the one line whenever its device is free.

The slot is reserved first, by being free, and the batch is formed then from all that waits. A replica that
hangs, is lost, or fails at what another one does well, rests: the others take what waits. Where all of them
are in trouble nobody rests, so that every caller is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lookalike_server.batcher import Line, Sizes, Taker
from lookalike_server.costs import SMALLEST
from lookalike_server.jobs import Batch
from lookalike_server.served import Model, Runner
from lookalike_server.supervised import Stage
from lookalike_server.wire import internal


@dataclass
class Trouble:
    """Why a replica cannot be counted on; "" where it can. Any thread may look.

    Attributes:
        silent: it has been at a batch for too long.
        lost: its device refuses all further work of this process.
        failing: canaries fail on it that others compute.
    """

    silent: str = ""
    lost: str = ""
    failing: str = ""

    @property
    def gone(self) -> str:
        """Why it answers nothing at all."""
        return self.lost or self.silent

    def __bool__(self) -> bool:
        return bool(self.lost or self.silent or self.failing)

    def __str__(self) -> str:
        return self.gone or self.failing


class Replica:
    """One device and its thread.

    Args:
        number: its place among the others.
        name: told to people and metrics, as "cuda:1".
        line: where it takes from.
        rests: whether it leaves what waits to others.
        ended: takes each batch, in this thread.
        failed: is told of a turn that was thrown out of its work, with the jobs it had in hand.

    Attributes:
        running: what it computes at this moment.
        taker: it, before the line.
    """

    def __init__(
        self,
        number: int,
        name: str,
        device: Runner,
        line: Line,
        *,
        rests: Callable[[Replica], bool],
        ended: Callable[[Batch], object],
        failed: Callable[[Stage, BaseException], None],
    ) -> None:
        self.number, self.name = number, name
        self.trouble = Trouble()
        self.running: Batch | None = None
        self.taker = Taker(number, lambda: rests(self))
        self._device, self._line, self._ended, self._failed = device, line, ended, failed
        self._stage = Stage(f"device-{number}", self._turn, self._thrown)
        self._warm: Callable[[BaseException | None], object] | None = None

    def start(
        self,
        most: int,
        sizes: Sizes,
        models: Sequence[Model],
        warm: Callable[[BaseException | None], object],
    ) -> None:
        """Starts its thread; `warm` is called there once the device is, or with why not."""
        self._most, self._sizes, self._models, self._warm = most, sizes, models, warm
        self._stage.start()

    def join(self, seconds: float | None) -> None:
        self._stage.join(seconds)

    def set_silent(self, reason: str) -> None:
        self.trouble.silent = reason
        self._line.look_again()

    def set_failing(self, reason: str) -> None:
        if reason != self.trouble.failing:
            self.trouble.failing = reason
            self._line.look_again()

    def seconds_left(self) -> float:
        """Of the batch that is running."""
        batch = self.running
        if batch is None:
            return 0.0
        return max(0.0, batch.model.cost.seconds(len(batch.jobs)) - (time.monotonic() - batch.started))

    def _turn(self, stage: Stage) -> bool:
        if self._warm is not None:
            return self._warm_up()
        batch = self._line.take_batch(self._most, self._sizes, self.taker)
        if batch is None:
            return False
        batch.replica = self.number
        stage.hand = batch.jobs + batch.dropped
        if batch.jobs:
            self._compute(batch)
        stage.hand = []
        self._ended(batch)
        return True

    def _warm_up(self) -> bool:
        warm, self._warm = self._warm, None
        assert warm is not None  # this is the first turn
        try:
            for model, tried in zip(self._models, self._device.warm_up(), strict=False):
                model.learn(tried)
        except BaseException as error:
            warm(error)
            return False
        warm(None)
        return True

    def _compute(self, batch: Batch) -> None:
        batch.started, self.running = time.monotonic(), batch
        try:
            pixels = [job.pixels for job in batch.jobs if job.pixels is not None]
            batch.descriptors = batch.model.run(self.number, pixels)
            batch.finite = _finite(batch)
        except BaseException as error:
            batch.error = internal(error)
            if not self._device.usable():
                self.trouble.lost = "its device refuses all further work"
                self._line.look_again()
        self.running = None
        batch.seconds = time.monotonic() - batch.started
        if batch.error is None:
            images = len(batch.jobs)
            batch.model.cost.learn(images, batch.seconds, weight=images / SMALLEST)

    def _thrown(self, stage: Stage, error: BaseException) -> None:
        self.running = None
        self._failed(stage, error)


def names_of(devices: Sequence[Runner]) -> list[str]:
    """The names of the devices; of several replicas of one device "cpu/0", "cpu/1"."""
    given = [device.name for device in devices]
    return [
        f"{name}/{given[:place].count(name)}" if given.count(name) > 1 else name
        for place, name in enumerate(given)
    ]


def rests(replica: Replica, others: Sequence[Replica]) -> bool:
    """Whether a replica leaves what waits to others: it is in trouble, and another one is not."""
    return bool(replica.trouble) and any(not other.trouble for other in others)


def _finite(batch: Batch) -> NDArray[np.bool_]:
    """[n], of each image whether all its numbers are finite. Raises RuntimeError when rows are missing."""
    finite = np.ones(len(batch.jobs), bool)
    for recipe, rows in batch.descriptors.items():
        if len(rows) != len(finite):
            raise RuntimeError(f"the model answered {len(rows)} rows for {len(finite)} images ({recipe})")
        finite &= np.isfinite(rows).all(axis=1)
    return finite
