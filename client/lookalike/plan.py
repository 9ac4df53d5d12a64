"""Carrying out a plan: moving redundant photos into a folder, from where they can come back.

A plan is the CSV that a report writes or its page exports (lookalike.report.tables): each row is to be moved
or kept. Nothing is ever deleted or written over, and a group never loses its last photo. What was moved is in
the folder's notes, written line by line before each move, so `undo` puts it back even after a crash.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import secrets
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lookalike.errors import InvalidArgument

LOG = "lookalike-moved.csv"
_NEEDED = ("group", "action", "path")


@dataclass(frozen=True)
class Row:
    """One photo of a plan."""

    group: str
    action: str  # "keep" or "move"
    path: Path
    bytes: int | None  # as it was when the plan was made; None when that is not known


@dataclass(frozen=True)
class Move:
    source: Path
    target: Path


@dataclass(frozen=True)
class Left:
    """A photo that stays where it is, although it was to be moved, and why."""

    path: Path
    reason: str


def read_plan(path: Path) -> list[Row]:
    """Reads a plan; raises InvalidArgument, naming the line, when it is none, and OSError."""
    # Names of files that are no UTF-8 come back as they are on disk.
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.DictReader(file)
        missing = [name for name in _NEEDED if name not in (table.fieldnames or ())]
        if missing:
            raise InvalidArgument(
                f"{path} is no plan: it has no column {missing[0]!r}."
                " Export one from the report, or use the report's CSV."
            )
        return [_row(path, table.line_num, fields) for fields in table]


def _row(plan: Path, line: int, fields: dict[str, str]) -> Row:
    action, path, size = fields["action"], fields["path"], fields.get("bytes") or ""
    if action not in ("keep", "move"):
        raise InvalidArgument(f"{plan}, line {line}: action is {action!r}; it must be 'keep' or 'move'.")
    if action == "move" and not os.path.isabs(path or ""):
        raise InvalidArgument(f"{plan}, line {line}: path is {path!r}; it must be a whole path.")
    return Row(fields["group"], action, Path(path), int(size) if size.isdecimal() else None)


def prepare(rows: Sequence[Row], folder: Path) -> tuple[list[Move], list[Left]]:
    """Looks at the files as they are now: which can be moved, and which stay.

    The folder will mirror the whole paths, so photos of one name do not meet.
    """
    moves: list[Move] = []
    left: list[Left] = []
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    folder = folder.absolute()
    for group in groups.values():
        kept = {row.path.resolve() for row in group if row.action == "keep" and row.path.is_file()}
        for row in group:
            if row.action == "keep":
                continue
            target = folder / row.path.relative_to(row.path.anchor)
            reason = _obstacle(row, target, kept)
            if reason:
                left.append(Left(row.path, reason))
            else:
                moves.append(Move(row.path, target))
    return moves, left


def _obstacle(row: Row, target: Path, kept: set[Path]) -> str:
    if not kept:
        return "no photo of its group that is kept is there"
    try:
        size = row.path.stat().st_size
    except OSError as error:
        return error.strerror or "cannot be read"
    if row.path.resolve() in kept:
        return "it is the photo that is kept, under another name"
    if row.bytes is not None and size != row.bytes:
        return "it has changed since the plan was made"
    return f"{target} is there already" if os.path.lexists(target) else ""


def carry_out(
    moves: Sequence[Move], folder: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Left]:
    """Moves the files, noting each in the folder first; returns those that could not be moved."""
    left: list[Left] = []
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("ab", buffering=0) as notes:
        for done, move in enumerate(moves, 1):
            try:
                _note(notes, move)
                _move(move.source, move.target)
            except OSError as error:
                left.append(Left(move.source, error.strerror or str(error)))
            progress(done, len(moves))
    return left


def _note(notes: io.FileIO, move: Move) -> None:
    """Writes a line that is on disk when this returns; where there is no room for it, nothing of it stays."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow([move.source, move.target])
    line = text.getvalue().encode("utf-8", "surrogateescape")
    before = notes.tell()
    try:
        if (notes.write(line) or 0) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(notes.fileno())
    except OSError:
        notes.truncate(before)
        notes.seek(before)
        raise


def undo(folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Left]:
    """Moves back whatever of the folder's notes is still there; returns what could not go back.

    Raises FileNotFoundError when nothing was ever moved there.
    """
    notes = folder / LOG
    moved = [move for move in _notes(notes) if os.path.lexists(move.target)]
    left: list[Left] = []
    for done, move in enumerate(reversed(moved), 1):
        try:
            _move(move.target, move.source)
        except OSError as error:
            left.append(Left(move.target, error.strerror or str(error)))
        progress(done, len(moved))
    if not left:
        notes.unlink()
    return left


def _notes(path: Path) -> Iterator[Move]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        for fields in csv.reader(file):
            if len(fields) == 2:  # the last line may be half there
                yield Move(Path(fields[0]), Path(fields[1]))


def _move(source: Path, target: Path) -> None:
    """Moves one file, across file systems too; raises FileExistsError rather than writing over another."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, f"{target} is there already")
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _move_across(source, target)


def _move_across(source: Path, target: Path) -> None:
    """Moves a file to another file system: the source goes once all of the copy is on disk."""
    draft = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        shutil.copy2(source, draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.rename(draft, target)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    os.unlink(source)
