"""A transaction of a store: rows in and out, and which of them searches must learn of."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from lookalike_server.attributes import index_attributes
from lookalike_server.rows import Descriptor, NewRow, Written
from lookalike_server.schema import Segment, document_crc, item_crc, vector_crc

# Most rows of one statement.
_MOST_ROWS = 64


class Writing:
    """A transaction, and what it changes: keys and vectors that are new, keys that are gone.

    Rows are deleted and inserted together, in a few statements for all changes: at each step of SQLite the
    thread lets go of Python's lock, and among many callers it waits long to have it again.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.sequence: int
        self._sealed: int
        self.sequence, self._sealed = connection.execute(
            "SELECT sequence, (SELECT coalesce(max(last), 0) FROM segment) FROM collection"
        ).fetchone()
        self.added: dict[int, Descriptor] = {}
        self.removed: list[int] = []
        self.changed = False
        """Whether there is anything to commit."""
        self._keys: dict[str, int | None] = {}
        self._waiting: dict[str, tuple[int, NewRow]] = {}
        self._doomed: list[int] = []

    def look_up(self, ids: Sequence[str]) -> None:
        """Finds the rows of those ids, which no change has looked for yet."""
        if not ids:
            return
        found = self._connection.execute(
            "SELECT id, k FROM item WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(ids),)
        )
        self._keys |= dict.fromkeys(ids) | dict(found.fetchall())

    def upsert(self, rows: Sequence[NewRow]) -> Written:
        """Inserts the rows, whose ids are all different, in place of those with the same ids."""
        self.changed |= bool(rows)
        replaced = self._remove([row.id for row in rows])
        for k, row in enumerate(rows, self.sequence + 1):
            self._waiting[row.id] = k, row
            self.added[k] = row.descriptor
        self.sequence += len(rows)
        return Written(self.sequence, inserted=len(rows) - replaced, replaced=replaced)

    def delete(self, ids: Sequence[str]) -> Written:
        """Deletes the items of those ids that are there."""
        deleted = self._remove(ids)
        self.sequence += bool(deleted)
        self.changed |= bool(deleted)
        return Written(self.sequence, deleted=deleted)

    def _remove(self, ids: Sequence[str]) -> int:
        self.look_up([item_id for item_id in ids if item_id not in self._keys])
        waiting = [self._waiting.pop(item_id) for item_id in ids if item_id in self._waiting]
        for key, _ in waiting:
            del self.added[key]
        found = [k for item_id in dict.fromkeys(ids) if (k := self._keys[item_id]) is not None]
        self._keys |= dict.fromkeys(ids)
        self._doomed += found
        for k in found:
            if self.added.pop(k, None) is None:
                self.removed.append(k)
        return len(waiting) + len(found)

    def write_out(self) -> None:
        """Deletes and inserts the rows that wait for it."""
        if self._doomed:
            doomed = json.dumps(self._doomed)
            for table in ("item", "vector"):
                self._connection.execute(
                    f"DELETE FROM {table} WHERE k IN (SELECT value FROM json_each(?))", (doomed,)
                )
            self._connection.execute(
                "INSERT OR IGNORE INTO gone SELECT value FROM json_each(?) WHERE value <= ?",
                (doomed, self._sealed),
            )
        rows = [*self._waiting.values()]
        self._insert("item", [_item(k, row) for k, row in rows])
        self._insert("vector", [_vector(k, row) for k, row in rows])
        self._keys |= {item_id: k for item_id, (k, _) in self._waiting.items()}
        self._doomed.clear()
        self._waiting.clear()

    def _insert(self, table: str, rows: Sequence[tuple[object, ...]]) -> None:
        start = 0
        while start < len(rows):
            # Powers of two, so that there are few statements, each compiled once.
            count = min(_MOST_ROWS, 1 << (len(rows) - start).bit_length() - 1)
            some = rows[start : start + count]
            marks = ", ".join([f"({', '.join('?' * len(some[0]))})"] * count)
            self._connection.execute(f"INSERT INTO {table} VALUES {marks}", [*chain.from_iterable(some)])
            start += count

    def set_document(self, name: str, value: str) -> Written:
        """Keeps the text under that name, in place of another; "" removes it."""
        self.changed = True
        self._connection.execute("DELETE FROM document WHERE name = ?", (name,))
        if value:
            self._connection.execute(
                "INSERT INTO document VALUES (?, ?, ?)", (name, value, document_crc(name, value))
            )
        return Written(self.sequence)

    def index_attributes(self, paths: Sequence[str]) -> Written:
        """Makes and removes indexes until just those of these checked paths are there."""
        self.changed = True
        self.write_out()
        index_attributes(self._connection, paths)
        return Written(self.sequence)

    def replace_segments(
        self, first: int, last: int, segment: Segment | None, keys: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Puts a segment with those keys, or none, in place of all that hold keys from `first` to `last`.

        Returns which of its rows are alive: bool [n].
        """
        self.changed = True
        self.write_out()
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
        self.write_out()
        self._connection.execute("UPDATE collection SET sequence = ?", (self.sequence,))
        self._connection.execute("COMMIT")


def _item(k: int, row: NewRow) -> tuple[object, ...]:
    return k, row.id, row.attributes_json, row.digest, item_crc(k, row.id, row.attributes_json, row.digest)


def _vector(k: int, row: NewRow) -> tuple[object, ...]:
    data = row.descriptor.astype("<f4", copy=False).tobytes()
    return k, data, vector_crc(k, data)
