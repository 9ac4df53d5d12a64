"""Progress of long work, on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lookalike.cli.output import say
from lookalike.progress import duration

if TYPE_CHECKING:
    from rich.console import Console

_LINE_SECONDS = 10.0

Advance = Callable[[int, int], None]
"""Called with what is done and what there is to do."""


@contextmanager
def meter(doing: str, total: int, unit: str) -> Iterator[Advance]:
    """Shows how far `doing` is, with its rate and the time that is left."""
    with _bar(doing, total, unit) if sys.stderr.isatty() else _lines(doing, unit) as advance:
        yield advance


@contextmanager
def waiting(doing: str) -> Iterator[None]:
    """Shows that something short is under way, on a terminal only."""
    if sys.stderr.isatty():
        with _console().status(doing):
            yield
    else:
        yield


@contextmanager
def _bar(doing: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    started = time.monotonic()
    with Progress(*columns, console=_console()) as progress:
        task = progress.add_task(doing, total=total, pace="")

        def advance(done: int, of: int) -> None:
            pace = _pace(done, of, unit, time.monotonic() - started)
            progress.update(task, completed=done, total=of, pace=pace)

        yield advance


@contextmanager
def _lines(doing: str, unit: str) -> Iterator[Advance]:
    started = time.monotonic()
    due = started + _LINE_SECONDS

    def advance(done: int, of: int) -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due:
            due = now + _LINE_SECONDS
            say(f"{doing}: {done:,} of {of:,}, {_pace(done, of, unit, now - started)}")

    yield advance


def _pace(done: int, of: int, unit: str, seconds: float) -> str:
    if not done or not seconds:
        return ""
    left = f", {duration((of - done) * seconds / done)} left" if done < of else ""
    return f"{done / seconds:,.1f} {unit}/s{left}"


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)
