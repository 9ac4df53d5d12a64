"""What the user sees: results on standard output, all else on standard error."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from lookalike.errors import DeadlineExceeded, LookalikeError, ResourceExhausted, Unavailable
from lookalike.records import Failure

_GONE = (Unavailable, ResourceExhausted, DeadlineExceeded)


class Interrupted(click.Abort):
    """Ctrl-C. The message tells what is kept."""


@contextmanager
def interruptible(kept: str) -> Iterator[None]:
    """Makes Ctrl-C end the command with one line: "stopped; " and `kept`. The error of a server that stops or
    stays away meanwhile gets `kept` as a note.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(kept) from None
    except LookalikeError as error:
        if isinstance(error, _GONE):
            error.add_note(kept)
        raise


def ask_to_delete(what: str) -> None:
    """Raises Interrupted without a yes."""
    try:
        click.confirm(f"Delete {what}?", abort=True, err=True)
    except click.Abort:  # no, Ctrl-C, or nobody there to ask
        raise Interrupted("nothing was deleted; --yes does not ask") from None


def say(text: str = "") -> None:
    """A line for people, on standard error."""
    click.echo(text, err=True)


def fail(message: str, status: int) -> int:
    """Says why, as one line for each problem, and returns the exit status."""
    for line in message.splitlines():
        say(f"lookalike: {line}")
    return status


def check_place(file: Path) -> None:
    """Raises UsageError when the file cannot be written: without a folder, or where none can be made."""
    folder, name = shown(file.parent), shown(file.name)
    if not file.absolute().parent.is_dir():
        raise click.UsageError(f"there is no folder {folder!r} to write {name!r} into")
    if file.exists() and not file.is_file():  # a finished draft would take the place of the device itself
        what = "a folder" if file.is_dir() else "no ordinary file"
        raise click.UsageError(f"{shown(file)!r} is {what}; name a file to write")
    try:
        tempfile.TemporaryFile(dir=file.absolute().parent).close()
    except OSError as error:
        why = error.strerror or error
        raise click.UsageError(f"{name!r} cannot be written into {folder!r}: {why}") from None


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Makes errors of the disk name the file that the user named, not a draft of it, or none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), shown(file)) from None


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def list_failures(failures: Sequence[Failure], what: str = "could not be read", noun: str = "photo") -> None:
    """The pictures that came to nothing, at the end of a command."""
    if failures:
        say(f"{plural(len(failures), noun)} {what}:")
        for failure in failures:
            say(f"  {shown(failure.source)}: {failure.message}")


def failures_json(failures: Sequence[Failure]) -> list[dict[str, str]]:
    return [{"path": shown(f.source), "reason": f.reason, "message": f.message} for f in failures]


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be, never cut off; numbers to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    numeric = [all(row[i][:1].isdigit() or row[i] in ("", "-") for row in rows) for i in range(len(head))]
    for place, row in enumerate((head, *rows)):
        cells = [
            cell.rjust(w) if right else cell.ljust(w)
            for cell, w, right in zip(row, widths, numeric, strict=True)
        ]
        line = "  ".join(cells).rstrip()
        click.echo(click.style(line, dim=True) if place == 0 else line)


def shown(path: str | Path) -> str:
    """A path as text that any stream can carry; bytes that are no UTF-8 as \\xff."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size(count: float) -> str:
    """Bytes for people, as "3.4 MB"."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def short_number(count: float) -> str:
    """As "1.2 G", for columns of parameters and operations."""
    for unit in ("", " k", " M", " G"):
        if count < 1000:
            return f"{count:.0f}" if not unit else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:,.1f} T"
