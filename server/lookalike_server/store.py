"""The file of a collection: opened, checked, read by any number of threads, written by one."""

from __future__ import annotations

import queue
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from lookalike_extractor.recipe import Space

from lookalike_server.attributes import index_attributes
from lookalike_server.errors import StoreDamaged, StoreTooNew
from lookalike_server.reader import Reader
from lookalike_server.schema import APPLICATION, PAGE_BYTES, SCHEMA, TABLES, UPGRADES, faults
from lookalike_server.writing import Writing

# A row is read from memory that the file is mapped to; a cache of pages this large would miss most of them.
_MAPPED_BYTES = 1 << 40


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
    def create(cls, path: Path, name: str, space: Space, indexed: Sequence[str] = ()) -> None:
        """Writes a file without items. It is on disk when this returns; its folder's entry may not be.

        indexed: checked paths of the attributes that get an index.
        """
        with faults(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(f"BEGIN; {TABLES} COMMIT;")
            connection.execute(
                "INSERT INTO collection VALUES (?, ?, 0, ?, ?, ?, ?)",
                (name, time.time(), space.id, space.dimension, space.recipe, space.metric),
            )
            index_attributes(connection, indexed)
            connection.execute(f"PRAGMA application_id={APPLICATION}")
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
        connection.execute(f"PRAGMA mmap_size={_MAPPED_BYTES}")
        return connection

    def _check(self) -> None:
        application = self._writer.execute("PRAGMA application_id").fetchone()[0]
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION:
            raise StoreDamaged(f"{self.path} is not a collection of Lookalike.", path=str(self.path))
        if version > SCHEMA:
            raise StoreTooNew(
                f"{self.path} was written by a newer Lookalike, in format {version}. This one reads up to "
                f"format {SCHEMA}: upgrade it.",
                path=str(self.path),
            )
        for old in range(version, SCHEMA):
            self._writer.executescript(f"BEGIN; {UPGRADES[old]} PRAGMA user_version={old + 1}; COMMIT;")
        self._writer.execute("PRAGMA journal_mode=WAL")  # a backup has none

    def _describe(self) -> None:
        row = self._writer.execute(
            "SELECT name, created, space, dimension, recipe, metric, sequence FROM collection"
        ).fetchone()
        if row is None or [type(value) for value in row] != [str, float, str, int, str, str, int]:
            raise StoreDamaged(f"{self.path} does not tell what it holds.", path=str(self.path))
        self.name: str = row[0]
        self.created: float = row[1]
        self.space = Space(id=row[2], dimension=row[3], recipe=row[4], metric=row[5])

    def rename(self, name: str) -> None:
        with faults(self.path):
            self._writer.execute("UPDATE collection SET name = ?", (name,))
        self.name = name

    def settle(self, *, shrink: bool = False) -> None:
        """Moves what the log holds into the file, so that the log can begin anew; `shrink` frees its space.

        SQLite would do it within a commit now and then, and keep that commit's caller waiting.
        """
        with faults(self.path):
            self._writer.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if shrink else 'PASSIVE'})")

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
