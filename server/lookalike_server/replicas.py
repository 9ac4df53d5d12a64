"""The device threads: each takes batches from the one line whenever its device is free.

The slot is reserved first, by being free, and the batch is formed then from all that waits. A GPU has two
slots: shortly before it has computed one batch the next one is formed and sent to it, so that it is never
without work, and no earlier, so that whoever comes in the meantime is in it.

A replica that hangs, is lost, or fails at what another one does well, rests: the others take what waits.
Where all of them are in trouble nobody rests, so that every caller is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lookalike_server.batcher import Line, Sizes, Taker
from lookalike_server.costs import SMALLEST
from lookalike_server.flights import Flight, Flights
from lookalike_server.jobs import Batch
from lookalike_server.served import Model, Runner
from lookalike_server.supervised import Stage
from lookalike_server.wire import internal

_SHORTEST_SLEEP = 0.0002


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
        self._flights = Flights()
        self.taker = Taker(number, lambda: rests(self))
        self._line, self._ended, self._failed = line, ended, failed
        self._at_once, self._cold = device.at_once, [device]
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

    @property
    def running(self) -> list[Batch]:
        """What was given to the device and has not come back, in order. It is at the first of them."""
        return self._flights.batches

    def seconds_left(self) -> float:
        """Of all that is running."""
        return self._flights.seconds_left()

    def _turn(self, stage: Stage) -> bool:
        if self._warm is not None:
            return self._warm_up()
        batch = self._next()
        if batch is not None:
            batch.replica = self.number
            stage.hand = [*self._flights.jobs, *batch.jobs, *batch.dropped]
            self._compute(batch)
        elif not self._flights:
            return False
        flying = len(self._flights)
        if flying and (batch is None or flying >= self._at_once):
            self._finish(self._flights.first)
        stage.hand = self._flights.jobs
        return True

    def _warm_up(self) -> bool:
        warm, self._warm = self._warm, None
        assert warm is not None  # this is the first turn
        try:
            # Its models know their device: one that is served no more is not kept by its replica.
            for model, tried in zip(self._models, self._cold.pop().warm_up(), strict=False):
                model.learn(tried)
        except BaseException as error:
            warm(error)
            return False
        warm(None)
        return True

    def _next(self) -> Batch | None:
        """What is computed next; None when what is running must be finished first, or all has ended."""
        if not self._flights:
            return self._line.take_batch(self._most, self._sizes, self.taker)
        self._sleep_until_due()
        if self._flights.first.done():
            return None
        return self._line.take_more(self._most, self._sizes, self.taker, ahead=self.seconds_left())

    def _sleep_until_due(self) -> None:
        """Returns when the device is about to be free, as soon as that leaves time to begin with more.

        Each time a quarter of what is left is slept, so that a device that is free earlier is soon seen.
        """
        first = self._flights.first
        while (left := self._flights.seconds_until_due()) > _SHORTEST_SLEEP and not first.done():
            time.sleep(left / 4)

    def _compute(self, batch: Batch) -> None:
        """Begins with a batch."""
        if not batch.jobs:
            self._ended(batch)
            return
        flight = self._flights.take_off(batch)
        try:
            pixels = [job.pixels for job in batch.jobs if job.pixels is not None]
            flight.pending = batch.model.begin(self.number, pixels)
        except BaseException as error:
            self._blame(batch, error)
            self._land(flight)
        flight.begin_seconds = time.monotonic() - batch.started

    def _finish(self, flight: Flight) -> None:
        """Waits for a batch."""
        batch, pending = flight.batch, flight.pending
        assert pending is not None  # what could not be begun has landed
        try:
            batch.descriptors = pending.result()
            batch.finite = _finite(batch)
        except BaseException as error:
            self._blame(batch, error)
        self._land(flight, pending.late)

    def _land(self, flight: Flight, late: float = 0.0) -> None:
        batch, images = flight.batch, len(flight.batch.jobs)
        self._flights.land(flight, late)
        if batch.error is None:
            batch.model.cost.learn(images, batch.seconds, weight=images / SMALLEST)
        self._ended(batch)

    def _blame(self, batch: Batch, error: BaseException) -> None:
        batch.error = internal(error)
        if not batch.model.usable(self.number):
            self.trouble.lost = "its device refuses all further work"
            self._line.look_again()

    def _thrown(self, stage: Stage, error: BaseException) -> None:
        self._flights.forget()
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
