"""The line between two stages: who goes next, and with whom.

There is no timer. A stage that is free takes what waits; while it is busy the line grows, and the next batch
with it. An idle device so answers one image at once, and a busy one runs full batches.

Interactive jobs go before bulk, models take turns, and within each so do the clients. Replicas that are free
at the same time share what waits.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from lookalike_server.costs import SMALLEST
from lookalike_server.jobs import Batch, Job
from lookalike_server.turns import Turns

if TYPE_CHECKING:
    from lookalike_server.served import Model

# Interactive jobs go first; of so many turns one begins with bulk, so that bulk goes on under any load.
_BULK_TURN = 8
# A near deadline makes batches smaller, but not so small that everybody else misses his.
_LEAST_PART = 8

_Lane = Turns[Job]
_Lanes = dict["Model", _Lane]


class Sizes(Protocol):
    """What is known of the cost of batches."""

    def efficient(self, model: Model, *, bulk: bool) -> int:
        """The size over which a batch only takes longer."""

    def largest(self, model: Model, *, bulk: bool) -> int:
        """The size that is taken just now if time allows: the efficient one, or now and then a larger one."""

    def seconds(self, model: Model, images: int) -> float:
        """Of a batch of so many."""

    def within(self, model: Model, seconds: float) -> int:
        """The size that can be computed in so many seconds."""


class Taker:
    """A replica before the line, as the line sees it.

    Args:
        number: jobs that are meant for this one alone go to it alone.
        rests: whether it leaves all other jobs to others just now.
    """

    def __init__(self, number: int = 0, rests: Callable[[], bool] = lambda: False) -> None:
        self.number, self.rests = number, rests
        self.own: deque[Job] = deque()


class Line:
    """Jobs that wait for a stage. Any thread may put and take."""

    def __init__(self) -> None:
        # By model, the one that was served longest ago first; empty lanes are not kept.
        self._interactive: _Lanes = {}
        self._bulk: _Lanes = {}
        self._takers: dict[int, Taker] = {}
        self._free: list[Taker] = []
        self._turns = 0
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return self.waiting(bulk=False) + self.waiting(bulk=True)

    def waiting(self, *, bulk: bool) -> int:
        return sum(self.by_model(bulk=bulk).values())

    def by_model(self, *, bulk: bool) -> dict[Model, int]:
        """How many jobs of each model wait."""
        lanes = self._bulk if bulk else self._interactive
        return {model: len(lane) for model, lane in tuple(lanes.items())}

    def enrol(self, takers: Iterable[Taker]) -> None:
        """Names those whom jobs may be meant for. Call it before they begin."""
        self._takers = {taker.number: taker for taker in takers}

    def put(self, jobs: Iterable[Job], *, wake: bool = True) -> None:
        """Puts jobs in line. Without `wake` those who wait are not woken: `wake` must follow."""
        with self._changed:
            for job in jobs:
                taker = self._takers.get(job.replica) if job.replica is not None else None
                if taker is not None:
                    taker.own.append(job)
                    self._changed.notify_all()
                    continue
                lanes = self._bulk if job.call.bulk else self._interactive
                lanes.setdefault(job.model, Turns()).put(job.call.client, job)
                if wake:
                    self._wake(1)

    def wake(self, jobs: int) -> None:
        """Wakes as many as so many jobs are for."""
        with self._changed:
            self._wake(jobs)

    def _wake(self, jobs: int) -> None:
        self._changed.notify(jobs * max(1, len(self._takers)))  # the first of them may be one that rests

    def look_again(self) -> None:
        """To be called when somebody begins to rest, or ends it."""
        with self._changed:
            self._changed.notify_all()

    def take_batch(self, most: int, sizes: Sizes | None = None, taker: Taker | None = None) -> Batch | None:
        """Waits for jobs and returns at most `most`, all of one model; None once it is closed and empty.

        Args:
            sizes: bounds it further, by what is efficient and what the nearest deadline allows.
            taker: who takes; those who are free at the same time share what waits.
        """
        taker = taker or Taker()
        with self._changed:
            self._free.append(taker)
            self._changed.wait_for(lambda: self._closed or taker.own or self._any_for(taker))
            free = sum(not other.rests() for other in self._free)
            self._free.remove(taker)
            if taker.own:
                return _alone(taker.own.popleft())
            return self._batch(most, sizes, free) if self._any_for(taker) else None

    def take_more(self, most: int, sizes: Sizes, taker: Taker, ahead: float) -> Batch | None:
        """Returns jobs for somebody who is free in so many seconds, as `take_batch`, but waits for none.

        Where others are free now what waits is theirs.
        """
        with self._changed:
            if taker.own:
                return _alone(taker.own.popleft())
            theirs = any(not other.rests() for other in self._free)
            return self._batch(most, sizes, 1, ahead) if self._any_for(taker) and not theirs else None

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
        """Takes all that waits, but for what is meant for one alone."""
        with self._changed:
            lanes = [*self._interactive.values(), *self._bulk.values()]
            self._interactive, self._bulk = {}, {}
            return [lane.take() for lane in lanes for _ in range(len(lane))]

    def clear_own(self, taker: Taker) -> list[Job]:
        """Takes all that is meant for one alone."""
        with self._changed:
            jobs = list(taker.own)
            taker.own.clear()
            return jobs

    def close(self) -> None:
        """Lets every taker return once what waits has been taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _any(self) -> bool:
        return bool(self._interactive or self._bulk)

    def _any_for(self, taker: Taker) -> bool:
        return self._any() and not taker.rests()

    def _kinds(self) -> tuple[_Lanes, _Lanes]:
        self._turns += 1
        if self._turns % _BULK_TURN == 0:
            return self._bulk, self._interactive
        return self._interactive, self._bulk

    def _batch(self, most: int, sizes: Sizes | None, free: int, ahead: float = 0.0) -> Batch:
        kinds = self._kinds()
        model, _ = _next(next(lanes for lanes in kinds if lanes))
        share = _share(sum(len(lanes.get(model, ())) for lanes in kinds), free)
        batch, nearest, in_time = Batch([], "drained"), math.inf, most
        now = time.monotonic() + ahead
        for lanes in kinds:
            lane = lanes.get(model) or Turns()
            largest, least = self._bounds(model, most, sizes, lanes)
            soonest = now + sizes.seconds(model, least) if sizes else now
            while lane and len(batch.jobs) < min(largest, in_time, share):
                job = lane.take()
                (batch.jobs if job.wanted(soonest) else batch.dropped).append(job)
                if sizes and job.call.deadline < nearest:
                    nearest = job.call.deadline
                    in_time = max(sizes.within(model, nearest - now), least)
            if lane:
                batch.released = _why(len(batch.jobs), most, in_time, share)
            _served(lanes, model)
        return batch

    def _bounds(self, model: Model, most: int, sizes: Sizes | None, lanes: _Lanes) -> tuple[int, int]:
        """The most jobs of these lanes for a batch, and how many it takes however near a deadline is."""
        if sizes is None:
            return most, 1
        bulk, waiting = lanes is self._bulk, len(lanes.get(model, ()))
        efficient, largest = sizes.efficient(model, bulk=bulk), sizes.largest(model, bulk=bulk)
        return min(most, largest), max(1, min(efficient, most // _LEAST_PART, waiting))


def _alone(job: Job) -> Batch:
    """A job that is meant for one taker travels alone."""
    return Batch([job], "drained") if job.wanted(time.monotonic()) else Batch([], "drained", [job])


def _share(waiting: int, free: int) -> int:
    return max(SMALLEST, -(-waiting // free)) if free > 1 else waiting


def _why(taken: int, most: int, in_time: int, share: int) -> str:
    """Why no more were taken, though more were there."""
    if taken >= most:
        return "full"
    if taken >= in_time:
        return "deadline"
    return "shared" if taken >= share else "efficient"


def _next(lanes: _Lanes) -> tuple[Model, _Lane]:
    return next(iter(lanes.items()))


def _served(lanes: _Lanes, model: Model) -> None:
    """Puts the model's lane behind the others, or away when it is empty."""
    lane = lanes.pop(model, None)
    if lane:
        lanes[model] = lane
