"""Verifying, copying and restoring a collection.

A backup is a store's file without segments: they are copies of its rows, and are made anew.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lookalike_server.errors import StoreDamaged, StoreTooNew
from lookalike_server.parts import Part
from lookalike_server.reader import Reader
from lookalike_server.schema import faults
from lookalike_server.segments import is_whole
from lookalike_server.store import Store
from lookalike_server.view import View

_MOST_PROBLEMS = 1000


@dataclass(frozen=True)
class Verified:
    """What was compared, and what is wrong."""

    problems: tuple[str, ...]
    items: int
    segments: int
    sequence: int


def verified(reader: Reader, view: View, folder: Path) -> Verified:
    """Compares one state of a collection with all copies of it; `folder` is that of its segments."""
    segments = reader.segments()
    problems: list[str] = []
    for problem in _problems(reader, view, folder):
        problems.append(problem)
        if len(problems) == _MOST_PROBLEMS:
            break
    return Verified(tuple(problems), view.count, len(segments), view.sequence)


def _problems(reader: Reader, view: View, folder: Path) -> Iterator[str]:
    yield from reader.damage()
    for segment in reader.segments():
        if not is_whole(folder, segment, view.dimension):
            yield f"segment {segment.first}-{segment.last} is missing or damaged; a restart makes it anew"
    if reader.tally() != view.tally():
        yield f"searches see {view.count} items, the store holds {reader.tally()[0]}; a restart mends it"
    for part in view.parts:
        if part.living and not _is_as_stored(part, reader):
            yield f"searches see other descriptors than the store holds near row {part.keys[0]}; restart"


def _is_as_stored(part: Part, reader: Reader) -> bool:
    rows = np.flatnonzero(part.alive)
    keys, vectors = part.keys[rows], part.vectors[: part.count]
    stored = list(reader.blocks(int(keys[0]), int(keys[-1]), trusting=True))
    return np.array_equal(np.concatenate([k for k, _ in stored] or [keys[:0]]), keys) and np.array_equal(
        np.concatenate([v for _, v in stored]), vectors[rows]
    )


def back_up(store: Store, path: Path) -> int:
    """Copies a store, as it is now, to a new file. Returns its sequence number. The file is on disk then."""
    with store.reading() as reader:
        with faults(path), closing(sqlite3.connect(path, isolation_level=None)) as copy:
            reader.copy_to(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            copy.executescript("BEGIN; DELETE FROM segment; DELETE FROM gone; COMMIT;")
        sequence = reader.sequence
    sync_file(path)
    return sequence


def restored(path: Path, name: str) -> str:
    """Makes a store of a copy, under that name or its own, which it returns. Reads and checks all of it.

    Raises StoreDamaged or StoreTooNew.
    """
    try:
        store = Store(path)
        try:
            with store.reading() as reader:
                for problem in reader.damage():
                    raise reader.damaged(problem)
            name = name or store.name
            store.rename(name)
        finally:
            store.close()
    except (StoreDamaged, StoreTooNew) as error:
        raise type(error)(_of_backup(error.message, path)) from error
    sync_file(path)
    return name


def _of_backup(message: str, path: Path) -> str:
    """What is wrong with a backup, told to the one who sent it: without the place where it lies here."""
    return message.replace(str(path), "The backup").replace("restore it from a backup", "take another one")


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
