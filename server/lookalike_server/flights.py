"""The batches that a replica has given to its device and not got back, and the time each one takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lookalike_server.jobs import Batch, Job
    from lookalike_server.served import InFlight

# The next batch is begun so many times the seconds before its device is free that this took the last time.
_TIMES_TO_BEGIN = 1.5


@dataclass(slots=True, eq=False)
class Flight:
    """A batch between its begin and its end.

    Attributes:
        pending: None while it is begun.
        begin_seconds: that this took.
    """

    batch: Batch
    pending: InFlight | None = None
    begin_seconds: float = 0.0

    def done(self) -> bool:
        """Whether nothing is to be waited for: its result is there, or why there is none."""
        try:
            return self.pending is not None and self.pending.done()
        except Exception:
            return True


class Flights:
    """In the order of their begin; the device is at the first. One thread changes it, any may look."""

    def __init__(self) -> None:
        self._all: tuple[Flight, ...] = ()

    def __len__(self) -> int:
        return len(self._all)

    @property
    def first(self) -> Flight:
        return self._all[0]

    @property
    def batches(self) -> list[Batch]:
        return [flight.batch for flight in self._all]

    @property
    def jobs(self) -> list[Job]:
        return [job for flight in self._all for job in flight.batch.jobs + flight.batch.dropped]

    def take_off(self, batch: Batch) -> Flight:
        """It is on its way from now on."""
        flight = Flight(batch)
        batch.started = time.monotonic()
        self._all = (*self._all, flight)
        return flight

    def land(self, flight: Flight, late: float = 0.0) -> None:
        """Notes what a batch took, which ended so many seconds ago.

        For one that was begun beside another this counts from when that had ended: the device was not free.
        """
        batch, ended = flight.batch, time.monotonic() - late
        batch.seconds = max(0.0, ended - batch.started)
        first, *others = self._all
        if flight is first:
            self._all = tuple(others)
            for behind in others[:1]:
                behind.batch.started = max(behind.batch.started, ended)
        else:
            self._all = tuple(other for other in self._all if other is not flight)

    def forget(self) -> None:
        self._all = ()

    def seconds_left(self) -> float:
        """Until all of them have ended, as far as is known."""
        batches = self.batches
        if not batches:
            return 0.0
        first, *others = (batch.model.cost.seconds(len(batch.jobs)) for batch in batches)
        return max(0.0, first - (time.monotonic() - batches[0].started)) + sum(others)

    def seconds_until_due(self) -> float:
        """Until the next one should be begun, so that it is there when the device is free."""
        return self.seconds_left() - _TIMES_TO_BEGIN * self.first.begin_seconds
