"""The line between two stages: who waits, who goes next, who has left.

There is no timer. A stage that is free takes what waits; while it is busy the line grows, and the next batch
with it. An idle device so answers one image at once, and a busy one runs full batches.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lookalike_extractor.errors import LookalikeError
from numpy.typing import NDArray

# Interactive jobs go first; of so many turns one begins with bulk, so that bulk goes on under any load.
_BULK_TURN = 8


@dataclass(slots=True, eq=False)
class Outcome:
    """What became of one image."""

    error: LookalikeError | None = None
    descriptors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """By recipe, float32 [d], of L2 length 1. Empty when it failed."""
    width: int = 0
    height: int = 0
    """Of the upright image, in pixels; 0 when its header was not readable."""
    digest: bytes = b""
    """SHA-256 of the bytes that were sent; empty when they were not decoded."""
    decode_s: float = 0.0
    queue_s: float = 0.0
    device_s: float = 0.0
    """Seconds of decoding, of waiting for the device, and of the batch that held the image."""


@dataclass(slots=True, eq=False)
class Call:
    """What the images of one call share."""

    done: asyncio.Future[None]
    pending: int
    bulk: bool
    left: bool = False
    """True once the caller has cancelled, or its deadline has passed: its jobs are dropped unseen."""


@dataclass(slots=True, eq=False)
class Job:
    """One image on its way: its input, the place for its result, its times."""

    call: Call
    source: bytes | NDArray[np.uint8]
    model: int
    size: int
    """Bytes it holds, as it was sent and decoded."""
    outcome: Outcome = field(default_factory=Outcome)
    pixels: NDArray[Any] | None = None
    """uint8 [h, w, 3] at the model's input size, once decoded."""
    ready_at: float = 0.0
    """When it was decoded, by the monotonic clock."""


class Line:
    """Jobs that wait for a stage. Any thread may put and take."""

    def __init__(self) -> None:
        self._interactive: deque[Job] = deque()
        self._bulk: deque[Job] = deque()
        self._turns = 0
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._interactive) + len(self._bulk)

    def put(self, jobs: Iterable[Job]) -> None:
        with self._changed:
            for job in jobs:
                (self._bulk if job.call.bulk else self._interactive).append(job)
                self._changed.notify()

    def take_batch(self, most: int) -> list[Job] | None:
        """Waits for jobs and returns at most `most`, all of one model; None once it is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self))
            return self._batch(most) if len(self) else None

    def take_share(self, most: int, takers: int) -> list[Job] | None:
        """Waits for jobs and returns one taker's share of them, at most `most`; None once closed and empty.

        What is taken together is handed on together, so interactive jobs never share with bulk.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self))
            if not len(self):
                return None
            lane = next(lane for lane in self._lanes() if lane)
            return [lane.popleft() for _ in range(min(most, -(-len(lane) // takers)))]

    def _batch(self, most: int) -> list[Job]:
        lanes = self._lanes()
        model = next(lane for lane in lanes if lane)[0].model
        batch: list[Job] = []
        for lane in lanes:
            _move(lane, model, most, batch)
        return batch

    def _lanes(self) -> tuple[deque[Job], deque[Job]]:
        self._turns += 1
        if self._turns % _BULK_TURN == 0:
            return self._bulk, self._interactive
        return self._interactive, self._bulk

    def close(self) -> None:
        """Lets every taker return once what waits has been taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _move(lane: deque[Job], model: int, most: int, batch: list[Job]) -> None:
    """Moves jobs of `model` into the batch until it holds `most`; the others keep their order."""
    others: list[Job] = []
    while lane and len(batch) < most:
        job = lane.popleft()
        (batch if job.model == model else others).append(job)
    lane.extendleft(reversed(others))
