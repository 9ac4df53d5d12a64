"""A transaction of a store: rows in and out, and which of them searches must learn of."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lookalike_server.attributes import index_attributes
from lookalike_server.rows import Descriptor, NewRow, Written
from lookalike_server.schema import Segment, document_crc, item_crc, vector_crc


class Writing:
    """A transaction, and what it changes: keys and vectors that are new, keys that are gone."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.sequence: int = connection.execute("SELECT sequence FROM collection").fetchone()[0]
        self.added: dict[int, Descriptor] = {}
        self.removed: list[int] = []
        self.changed = False
        """Whether there is anything to commit."""
        self._sealed: int = connection.execute("SELECT coalesce(max(last), 0) FROM segment").fetchone()[0]

    def upsert(self, rows: Sequence[NewRow]) -> Written:
        """Inserts the rows, whose ids are all different, in place of those with the same ids."""
        self.changed |= bool(rows)
        replaced = self._remove([row.id for row in rows])
        numbered = list(enumerate(rows, self.sequence + 1))
        self._connection.executemany(
            "INSERT INTO item VALUES (?, ?, ?, ?, ?)",
            [
                (k, r.id, r.attributes_json, r.digest, item_crc(k, r.id, r.attributes_json, r.digest))
                for k, r in numbered
            ],
        )
        data = [(k, row.descriptor.astype("<f4", copy=False).tobytes()) for k, row in numbered]
        self._connection.executemany(
            "INSERT INTO vector VALUES (?, ?, ?)", [(k, d, vector_crc(k, d)) for k, d in data]
        )
        self.sequence += len(rows)
        self.added.update((k, row.descriptor) for k, row in numbered)
        return Written(self.sequence, inserted=len(rows) - replaced, replaced=replaced)

    def delete(self, ids: Sequence[str]) -> Written:
        """Deletes the items of those ids that are there."""
        deleted = self._remove(ids)
        self.sequence += bool(deleted)
        self.changed |= bool(deleted)
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
        index_attributes(self._connection, paths)
        return Written(self.sequence)

    def replace_segments(
        self, first: int, last: int, segment: Segment | None, keys: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Puts a segment with those keys, or none, in place of all that hold keys from `first` to `last`.

        Returns which of its rows are alive: bool [n].
        """
        self.changed = True
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
