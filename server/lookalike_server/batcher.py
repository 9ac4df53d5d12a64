"""The line between two stages: who goes next, and with whom.

There is no timer. A stage that is free takes what waits; while it is busy the line grows, and the next batch
with it. An idle device so answers one image at once, and a busy one runs full batches.

Interactive jobs go before bulk, models take turns, and within each so do the clients.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable
from typing import Protocol

from lookalike_server.jobs import Batch, Job
from lookalike_server.turns import Turns

# Interactive jobs go first; of so many turns one begins with bulk, so that bulk goes on under any load.
_BULK_TURN = 8
# A near deadline makes batches smaller, but not so small that everybody else misses his.
_LEAST_PART = 4

_Lane = Turns[Job]


class Sizes(Protocol):
    """What is known of the cost of batches."""

    def efficient(self, model: int, *, bulk: bool) -> int:
        """The size over which a batch only takes longer."""

    def soonest(self, model: int) -> float:
        """The seconds that one image takes."""

    def within(self, model: int, seconds: float) -> int:
        """The size that can be computed in so many seconds."""


class Line:
    """Jobs that wait for a stage. Any thread may put and take."""

    def __init__(self) -> None:
        # By model, the one that was served longest ago first; empty lanes are not kept.
        self._interactive: dict[int, _Lane] = {}
        self._bulk: dict[int, _Lane] = {}
        self._turns = 0
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return self.waiting(bulk=False) + self.waiting(bulk=True)

    def waiting(self, *, bulk: bool, model: int | None = None) -> int:
        lanes = self._bulk if bulk else self._interactive
        if model is not None:
            return len(lanes.get(model, ()))
        return sum(len(lane) for lane in tuple(lanes.values()))

    def put(self, jobs: Iterable[Job]) -> None:
        with self._changed:
            for job in jobs:
                lanes = self._bulk if job.call.bulk else self._interactive
                lanes.setdefault(job.model, Turns()).put(job.call.client, job)
                self._changed.notify()

    def take_batch(self, most: int, sizes: Sizes | None = None) -> Batch | None:
        """Waits for jobs and returns at most `most`, all of one model; None once it is closed and empty.

        Args:
            sizes: bounds it further, by what is efficient and what the nearest deadline allows.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._any())
            return self._batch(most, sizes) if self._any() else None

    def take_share(self, most: int, takers: int) -> list[Job] | None:
        """Waits for jobs and returns one taker's share of them, at most `most`; None once closed and empty.

        What is taken together is handed on together, so interactive jobs never share with bulk.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._any())
            if not self._any():
                return None
            lanes = next(lanes for lanes in self._kinds() if lanes)
            model, lane = _next(lanes)
            taken = [lane.take() for _ in range(min(most, -(-len(lane) // takers)))]
            _served(lanes, model)
            return taken

    def clear(self) -> list[Job]:
        """Takes all that waits."""
        with self._changed:
            lanes = [*self._interactive.values(), *self._bulk.values()]
            self._interactive, self._bulk = {}, {}
            return [lane.take() for lane in lanes for _ in range(len(lane))]

    def close(self) -> None:
        """Lets every taker return once what waits has been taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _any(self) -> bool:
        return bool(self._interactive or self._bulk)

    def _kinds(self) -> tuple[dict[int, _Lane], dict[int, _Lane]]:
        self._turns += 1
        if self._turns % _BULK_TURN == 0:
            return self._bulk, self._interactive
        return self._interactive, self._bulk

    def _batch(self, most: int, sizes: Sizes | None) -> Batch:
        kinds = self._kinds()
        model, _ = _next(next(lanes for lanes in kinds if lanes))
        batch, nearest, in_time = Batch([], "drained"), math.inf, most
        now = time.monotonic()
        soonest = now + sizes.soonest(model) if sizes else now
        for lanes in kinds:
            efficient = min(most, sizes.efficient(model, bulk=lanes is self._bulk)) if sizes else most
            lane = lanes.get(model) or Turns()
            while lane and len(batch.jobs) < min(efficient, in_time):
                job = lane.take()
                (batch.jobs if job.wanted(soonest) else batch.dropped).append(job)
                if sizes and job.call.deadline < nearest:
                    nearest = job.call.deadline
                    in_time = max(sizes.within(model, nearest - now), most // _LEAST_PART, 1)
            if lane:
                batch.released = _why(len(batch.jobs), most, in_time)
            _served(lanes, model)
        return batch


def _why(taken: int, most: int, in_time: int) -> str:
    """Why no more were taken, though more were there."""
    if taken >= most:
        return "full"
    return "deadline" if taken >= in_time else "efficient"


def _next(lanes: dict[int, _Lane]) -> tuple[int, _Lane]:
    return next(iter(lanes.items()))


def _served(lanes: dict[int, _Lane], model: int) -> None:
    """Puts the model's lane behind the others, or away when it is empty."""
    lane = lanes.pop(model, None)
    if lane:
        lanes[model] = lane
