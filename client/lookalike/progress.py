"""How far a long write is: counted in one place, shown by whoever likes to."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from lookalike import _bulk
from lookalike.records import AddReport, Failure


@dataclass(frozen=True, slots=True)
class Progress:
    """What of a long write has been answered."""

    done: int
    """Items added or failed."""
    failed: int
    total: int | None
    """Items to write; None when they come from a generator."""
    seconds: float
    """Since the start."""

    @property
    def rate(self) -> float:
        """Items per second."""
        return self.done / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        of = f" of {self.total:,}" if self.total is not None else ""
        failed = f", {self.failed:,} failed" if self.failed else ""
        left = ""
        if self.total is not None and self.rate:
            left = f", {duration((self.total - self.done) / self.rate)} left"
        return f"{self.done:,}{of} done{failed}, {self.rate:.1f}/s{left}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as "1:02:03" or "0:07"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Tally:
    """Adds up the answers of a long write."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._done = 0
        self._failures: list[Failure] = []
        self._sequence = 0
        self._start = time.monotonic()

    def acknowledge(self, chunk: _bulk.Chunk[Any], answer: Any) -> None:
        """`answer` is None for a chunk of which nothing was sent."""
        self._done += len(chunk.entries)
        self._failures += _bulk.upsert_failures(chunk, answer.statuses if answer else ())
        self._sequence = max(self._sequence, answer.response.sequence if answer else 0)

    def progress(self) -> Progress:
        return Progress(self._done, len(self._failures), self._total, time.monotonic() - self._start)

    def report(self) -> AddReport:
        added = self._done - len(self._failures)
        return AddReport(added, tuple(self._failures), self._sequence)


@contextmanager
def observer(progress: bool | Callable[[Progress], None]) -> Iterator[Callable[[Progress], None]]:
    """What is told of each step: the caller's function, a line on stderr, or nobody."""
    if callable(progress):
        yield progress
    elif progress:
        line = _Line(sys.stderr)
        try:
            yield line
        finally:
            line.close()
    else:
        yield lambda _: None


class _Line:
    """A line that is written over on a terminal; elsewhere a new one every ten seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._over = stream.isatty()
        self._next = 0.0
        self._last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        self._last = progress
        if progress.seconds >= self._next:
            self._write(progress)
            self._next = progress.seconds + (0.2 if self._over else 10.0)

    def close(self) -> None:
        if self._last is not None:
            self._write(self._last)
            if self._over:
                self._stream.write("\n")

    def _write(self, progress: Progress) -> None:
        self._stream.write(f"\r{progress}\x1b[K" if self._over else f"{progress}\n")
        self._stream.flush()
