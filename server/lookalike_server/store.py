"""The truth of a collection: one SQLite file.

    collection   one row: name, space, sequence
    item         k, id, attributes, digest, crc
    vector       k, data, crc
    segment      files that hold copies of the vectors of a range of keys (segments.py)
    gone         keys of rows that were deleted since their segment was written

`k` is both the key of a row and its version: a write of an id deletes the old row and inserts a new one with
the next number, which is never used again. Vectors have a table of their own so that a filter reads
attributes only. Each row carries a checksum, because SQLite notices a torn page but not a flipped bit.

A commit is on disk when it returns (write-ahead log, synchronous=FULL). One thread writes; any number read,
each within a transaction that sees one state.
"""

from __future__ import annotations

import json
import os
import queue
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from lookalike_extractor.errors import LookalikeError
from lookalike_extractor.recipe import Space
from numpy.typing import NDArray

from lookalike_server.errors import DiskFull, StoreDamaged, StoreTooNew, StoreUnusable
from lookalike_server.rows import Descriptor, NewRow, Row, Written

if TYPE_CHECKING:
    from lookalike_server.filters import Filter

SCHEMA = 1
_APPLICATION = 0x4C4F4F4B  # "LOOK": tells our files from other SQLite files
# Pages this large hold several vectors: with SQLite's own 4 KiB a file is twice its data.
_PAGE_BYTES = 32_768
_BLOCK = 4096

_TABLES = """
CREATE TABLE collection(
    name TEXT NOT NULL, created REAL NOT NULL, sequence INTEGER NOT NULL,
    space TEXT NOT NULL, dimension INTEGER NOT NULL, recipe TEXT NOT NULL, metric TEXT NOT NULL);
CREATE TABLE item(
    k INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, attributes TEXT NOT NULL, digest BLOB NOT NULL,
    crc INTEGER NOT NULL);
CREATE TABLE vector(k INTEGER PRIMARY KEY, data BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE segment(
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, count INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE gone(k INTEGER PRIMARY KEY);
"""


@dataclass(frozen=True)
class Segment:
    """A file with the vectors of `count` of the keys from `first` to `last`. Segments do not overlap."""

    first: int
    last: int
    count: int
    crc: int


class Store:
    """One collection's file. Opening it checks that it is one of ours and not newer than this program.

    Raises StoreDamaged, StoreTooNew or StoreUnusable, each naming the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._all: list[sqlite3.Connection] = []
        with faults(self.path):
            if not path.is_file():
                raise StoreDamaged(f"{path} is missing; restore it from a backup.", path=str(path))
            try:
                self._writer = self._connect()
                self._check()
                self._describe()
            except BaseException:
                self.close()
                raise

    @classmethod
    def create(cls, path: Path, name: str, space: Space) -> None:
        """Writes a file without items. It is on disk when this returns; its folder's entry may not be."""
        with faults(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(f"BEGIN; {_TABLES} COMMIT;")
            connection.execute(
                "INSERT INTO collection VALUES (?, ?, 0, ?, ?, ?, ?)",
                (name, time.time(), space.id, space.dimension, space.recipe, space.metric),
            )
            connection.execute(f"PRAGMA application_id={_APPLICATION}")
            connection.execute(f"PRAGMA user_version={SCHEMA}")

    def close(self) -> None:
        """Closes every connection. No call may be under way."""
        # The last connection to close empties the log into the file and removes it.
        for connection in self._all:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        # Connections move between threads, but each is used by one at a time.
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)
        self._all.append(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=0")  # see `settle`
        return connection

    def _check(self) -> None:
        application = self._writer.execute("PRAGMA application_id").fetchone()[0]
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if application != _APPLICATION:
            raise StoreDamaged(f"{self.path} is not a collection of Lookalike.", path=str(self.path))
        if version > SCHEMA:
            raise StoreTooNew(
                f"{self.path} was written by a newer Lookalike, in format {version}. This one reads up to "
                f"format {SCHEMA}: upgrade it.",
                path=str(self.path),
            )

    def _describe(self) -> None:
        row = self._writer.execute(
            "SELECT name, created, space, dimension, recipe, metric FROM collection"
        ).fetchone()
        if row is None:
            raise StoreDamaged(f"{self.path} does not tell what it holds.", path=str(self.path))
        self.name: str = row[0]
        self.created: float = row[1]
        self.space = Space(id=row[2], dimension=row[3], recipe=row[4], metric=row[5])

    def settle(self) -> None:
        """Moves what the log holds into the file, so that the log can begin anew.

        SQLite would do it within a commit now and then, and keep that commit's caller waiting.
        """
        with faults(self.path):
            self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)")

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Gives a view of the store as it is now, and stays so until the block ends."""
        with faults(self.path):
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                connection = self._connect()
            try:
                connection.execute("BEGIN")
                yield Reader(connection, self.path, self.space.dimension)
            finally:
                connection.rollback()
                self._idle.put(connection)

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """One transaction, for the one thread that writes. Without a `commit` nothing was written."""
        with faults(self.path):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield Writing(self._writer)
            finally:
                self._writer.rollback()


class Reader:
    """One state of the store. Rows whose checksum is wrong raise StoreDamaged."""

    def __init__(self, connection: sqlite3.Connection, path: Path, dimension: int) -> None:
        self._connection = connection
        self._path = path
        self._dimension = dimension
        self.sequence: int = connection.execute("SELECT sequence FROM collection").fetchone()[0]

    def segments(self) -> list[Segment]:
        """Returns the segments by ascending keys."""
        found = self._connection.execute("SELECT first, last, count, crc FROM segment ORDER BY first")
        return [Segment(*row) for row in found]

    def gone(self) -> NDArray[np.int64]:
        """Returns the keys, ascending, of rows that segments may hold though they were deleted."""
        found = self._connection.execute("SELECT k FROM gone ORDER BY k")
        return np.fromiter((k for (k,) in found), np.int64)

    def blocks(
        self, first: int = 0, last: int = 2**63 - 1
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yields the keys int64 [n] from `first` to `last`, ascending, with their vectors float32 [n, d]."""
        found = self._connection.execute(
            "SELECT k, data, crc FROM vector WHERE k BETWEEN ? AND ? ORDER BY k", (first, last)
        )
        while rows := found.fetchmany(_BLOCK):
            for k, data, crc in rows:
                self._check_vector(k, data, crc)
            vectors = np.frombuffer(b"".join(data for _, data, _ in rows), "<f4")
            yield np.array([k for k, _, _ in rows], np.int64), vectors.reshape(len(rows), -1)

    def keys(self, where: Filter) -> NDArray[np.int64]:
        """Returns the keys of the items that fit, ascending."""
        found = self._connection.execute(f"SELECT k FROM item WHERE {where.sql} ORDER BY k", where.parameters)
        return np.fromiter((k for (k,) in found), np.int64)

    def by_key(self, keys: Sequence[int]) -> dict[int, Row]:
        """Returns the rows of those keys that are there."""
        return {
            row.k: row for row in self._rows("k IN (SELECT value FROM json_each(?))", (json.dumps(keys),))
        }

    def by_id(self, ids: Sequence[str], *, descriptors: bool = False) -> dict[str, Row]:
        """Returns the rows of those ids that are there."""
        where = "id IN (SELECT value FROM json_each(?))"
        return {row.id: row for row in self._rows(where, (json.dumps(ids),), descriptors=descriptors)}

    def page(self, after: int, limit: int, where: Filter, *, descriptors: bool = False) -> list[Row]:
        """Returns the next rows whose key is greater than `after`, ascending."""
        found = self._rows(
            f"k > ? AND ({where.sql}) ORDER BY k LIMIT ?",
            (after, *where.parameters, limit),
            descriptors=descriptors,
        )
        return list(found)

    def _rows(self, where: str, parameters: Sequence[object], *, descriptors: bool = False) -> Iterator[Row]:
        found = self._connection.execute(
            f"SELECT k, id, attributes, digest, crc FROM item WHERE {where}", parameters
        )
        for k, item_id, attributes, digest, crc in found.fetchall():
            if crc != _item_crc(k, item_id, attributes, digest):
                raise self._damaged(k)
            yield Row(k, item_id, attributes, digest, self._descriptor(k) if descriptors else None)

    def _descriptor(self, k: int) -> Descriptor:
        row = self._connection.execute("SELECT data, crc FROM vector WHERE k = ?", (k,)).fetchone()
        if row is None:
            raise self._damaged(k)
        data, crc = row
        self._check_vector(k, data, crc)
        return np.frombuffer(data, "<f4").astype(np.float32, copy=False)

    def _check_vector(self, k: int, data: bytes, crc: int) -> None:
        if crc != _vector_crc(k, data) or len(data) != 4 * self._dimension:
            raise self._damaged(k)

    def _damaged(self, k: int) -> StoreDamaged:
        return StoreDamaged(
            f"{self._path} is damaged at row {k}; restore it from a backup.", path=str(self._path)
        )


class Writing:
    """A transaction, and what it changes: keys and vectors that are new, keys that are gone."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.sequence: int = connection.execute("SELECT sequence FROM collection").fetchone()[0]
        self.added: dict[int, Descriptor] = {}
        self.removed: list[int] = []
        self._sealed: int = connection.execute("SELECT coalesce(max(last), 0) FROM segment").fetchone()[0]

    def upsert(self, rows: Sequence[NewRow]) -> Written:
        """Inserts the rows, whose ids are all different, in place of those with the same ids."""
        replaced = self._remove([row.id for row in rows])
        numbered = list(enumerate(rows, self.sequence + 1))
        self._connection.executemany(
            "INSERT INTO item VALUES (?, ?, ?, ?, ?)",
            [
                (k, r.id, r.attributes_json, r.digest, _item_crc(k, r.id, r.attributes_json, r.digest))
                for k, r in numbered
            ],
        )
        data = [(k, row.descriptor.astype("<f4", copy=False).tobytes()) for k, row in numbered]
        self._connection.executemany(
            "INSERT INTO vector VALUES (?, ?, ?)", [(k, d, _vector_crc(k, d)) for k, d in data]
        )
        self.sequence += len(rows)
        self.added.update((k, row.descriptor) for k, row in numbered)
        return Written(self.sequence, inserted=len(rows) - replaced, replaced=replaced)

    def delete(self, ids: Sequence[str]) -> Written:
        """Deletes the items of those ids that are there."""
        deleted = self._remove(ids)
        self.sequence += bool(deleted)
        return Written(self.sequence, deleted=deleted)

    def _remove(self, ids: Sequence[str]) -> int:
        found = self._connection.execute(
            "SELECT k FROM item WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(ids),)
        ).fetchall()
        for table in ("item", "vector"):
            self._connection.executemany(f"DELETE FROM {table} WHERE k = ?", found)
        self._connection.executemany(
            "INSERT OR IGNORE INTO gone VALUES (?)", [(k,) for (k,) in found if k <= self._sealed]
        )
        for (k,) in found:
            if self.added.pop(k, None) is None:
                self.removed.append(k)
        return len(found)

    def replace_segments(
        self, first: int, last: int, segment: Segment | None, keys: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Puts a segment with those keys, or none, in place of all that hold keys from `first` to `last`.

        Returns which of its rows are alive: bool [n].
        """
        reached = self._connection.execute(
            "SELECT coalesce(min(first), ?1), coalesce(max(last), ?2) FROM segment "
            "WHERE last >= ?1 AND first <= ?2",
            (first, last),
        ).fetchone()
        self._connection.execute("DELETE FROM segment WHERE last >= ? AND first <= ?", (first, last))
        self._connection.execute(
            "DELETE FROM gone WHERE k BETWEEN min(?1, ?3) AND max(?2, ?4)", (*reached, first, last)
        )
        found = self._connection.execute("SELECT k FROM item WHERE k BETWEEN ? AND ?", (first, last))
        alive = np.isin(keys, np.fromiter((k for (k,) in found), np.int64), assume_unique=True)
        if segment is not None:
            self._connection.execute(
                "INSERT INTO segment VALUES (?, ?, ?, ?)",
                (segment.first, segment.last, segment.count, segment.crc),
            )
            self._connection.executemany("INSERT INTO gone VALUES (?)", [(k,) for k in keys[~alive].tolist()])
            self._sealed = max(self._sealed, segment.last)
        return alive

    def commit(self) -> None:
        self._connection.execute("UPDATE collection SET sequence = ?", (self.sequence,))
        self._connection.execute("COMMIT")


@contextmanager
def faults(path: Path) -> Iterator[None]:
    """Turns errors of SQLite into those that a caller can be told; what is our fault stays as it is."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        fault = None if code is None else _FAULTS.get(code) or _FAULTS.get(code & 0xFF)
        if fault is None:
            raise
        cls, message = fault
        raise cls(f"{path} {message}", path=str(path)) from error


_FAULTS: Mapping[int, tuple[type[LookalikeError], str]] = {
    sqlite3.SQLITE_FULL: (DiskFull, "cannot grow: the disk is full. Free some space; reading goes on."),
    sqlite3.SQLITE_IOERR_SHMSIZE: (DiskFull, "cannot grow: the disk is full. Free some space."),
    sqlite3.SQLITE_CORRUPT: (StoreDamaged, "is damaged; restore it from a backup."),
    sqlite3.SQLITE_NOTADB: (StoreDamaged, "is damaged: not a database; restore it from a backup."),
    sqlite3.SQLITE_READONLY: (
        StoreUnusable,
        "cannot be written; check the rights of the file and its folder.",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnusable,
        "cannot be opened; check the rights of the file and its folder.",
    ),
    sqlite3.SQLITE_PERM: (StoreUnusable, "cannot be opened; check the rights of the file and its folder."),
}


def sync_folder(folder: Path) -> None:
    """Puts the folder's entries on disk: a new or renamed file is not safe before."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _item_crc(k: int, item_id: str, attributes: str, digest: bytes) -> int:
    # Lengths are part of it, so that no two rows join to the same bytes.
    a, b = item_id.encode(), attributes.encode()
    return zlib.crc32(b"".join((struct.pack("<qII", k, len(a), len(b)), a, b, digest)))


def _vector_crc(k: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(struct.pack("<q", k)))
