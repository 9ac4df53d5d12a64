"""What is read from a store: one state of it, each row checked."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lookalike_server.attributes import indexed_attributes
from lookalike_server.errors import StoreDamaged
from lookalike_server.rows import Descriptor, Row
from lookalike_server.schema import TALLY_MODULUS, Segment, document_crc, item_crc, vector_crc

if TYPE_CHECKING:
    from lookalike_server.filter_sql import Filter

_BLOCK = 4096


class Reader:
    """One state of the store. Rows whose checksum is wrong raise StoreDamaged."""

    def __init__(self, connection: sqlite3.Connection, path: Path, dimension: int) -> None:
        self._connection = connection
        self._path = path
        self._dimension = dimension
        self.sequence: int = connection.execute("SELECT sequence FROM collection").fetchone()[0]

    def indexed_attributes(self) -> list[str]:
        return indexed_attributes(self._connection)

    def segments(self) -> list[Segment]:
        """Returns the segments by ascending keys."""
        found = self._connection.execute("SELECT first, last, count, crc FROM segment ORDER BY first")
        return [Segment(*row) for row in found]

    def gone(self) -> NDArray[np.int64]:
        """Returns the keys, ascending, of rows that segments may hold though they were deleted.

        They have no checksums: whoever uses them compares the outcome with `tally`.
        """
        found = self._connection.execute("SELECT k FROM gone")
        return np.unique(np.fromiter((k for (k,) in found), np.int64))  # a flipped bit takes one out of order

    def blocks(
        self, first: int = 0, last: int = 2**63 - 1, *, trusting: bool = False
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yields the keys int64 [n] from `first` to `last`, ascending, with their vectors float32 [n, d].

        `trusting` leaves out rows of another length instead of raising StoreDamaged for what is damaged.
        """
        found = self._connection.execute(
            "SELECT k, data, crc FROM vector WHERE k BETWEEN ? AND ? ORDER BY k", (first, last)
        )
        while rows := found.fetchmany(_BLOCK):
            if trusting:
                rows = [row for row in rows if self._is_vector(row[1])]
            else:
                for k, data, crc in rows:
                    self._check_vector(k, data, crc)
            vectors = np.frombuffer(b"".join(data for _, data, _ in rows), "<f4")
            yield np.array([k for k, _, _ in rows], np.int64), vectors.reshape(len(rows), -1)

    def tally(self) -> tuple[int, int]:
        """Returns the number of items, and a sum over their keys, as View.tally does."""
        count, keys = self._connection.execute(
            "SELECT count(*), coalesce(sum(k % ?), 0) FROM item", (TALLY_MODULUS,)
        ).fetchone()
        return count, keys

    def damage(self) -> Iterator[str]:
        """Reads everything and tells, in words, each thing that is not what was written."""
        for (line,) in self._connection.execute("PRAGMA integrity_check"):
            if line != "ok":
                yield f"the database: {line}"
        for k, *row, crc in self._connection.execute("SELECT k, id, attributes, digest, crc FROM item"):
            if crc != item_crc(k, *row):
                yield f"row {k}: the item {row[0]!r} is not what was written"
        for k, data, crc in self._connection.execute("SELECT k, data, crc FROM vector"):
            if crc != vector_crc(k, data) or not self._is_vector(data):
                yield f"row {k}: the descriptor is not what was written"
        for one, other in (("item", "vector"), ("vector", "item")):
            for (k,) in self._connection.execute(f"SELECT k FROM {one} EXCEPT SELECT k FROM {other}"):
                yield f"row {k}: there is no {other}"
        for name, value, crc in self._connection.execute("SELECT name, value, crc FROM document"):
            if crc != document_crc(name, value):
                yield f"document {name!r} is not what was written"

    def copy_to(self, other: sqlite3.Connection) -> None:
        """Copies this state into another database, page by page."""
        self._connection.backup(other)

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
        """Returns the next rows whose key is greater than `after`, ascending; all with a limit of -1."""
        condition = f"k > ? AND ({where.sql}) ORDER BY k LIMIT ?"
        parameters = (after, *where.parameters, limit)
        if limit >= 0 and self._sorts(condition, parameters):
            return list(self._rows(condition, parameters, "NOT INDEXED", descriptors=descriptors))
        return list(self._rows(condition, parameters, descriptors=descriptors))

    def _sorts(self, condition: str, parameters: Sequence[object]) -> bool:
        """Whether SQLite would read all that fits and sort it: for a page, too much each time."""
        explain = f"EXPLAIN QUERY PLAN SELECT id FROM item WHERE {condition}"
        return any("ORDER BY" in step[3] for step in self._connection.execute(explain, parameters))

    def document(self, name: str) -> str | None:
        """Returns the text that is kept under that name. Raises StoreDamaged."""
        row = self._connection.execute("SELECT value, crc FROM document WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        value: str = row[0]
        if row[1] != document_crc(name, value):
            raise self.damaged(f"document {name!r}")
        return value

    def _rows(
        self, where: str, parameters: Sequence[object], through: str = "", *, descriptors: bool = False
    ) -> Iterator[Row]:
        found = self._connection.execute(
            f"SELECT k, id, attributes, digest, crc FROM item {through} WHERE {where}", parameters
        )
        for k, item_id, attributes, digest, crc in found.fetchall():
            if crc != item_crc(k, item_id, attributes, digest):
                raise self._damaged(k)
            yield Row(k, item_id, attributes, digest, self._descriptor(k) if descriptors else None)

    def _descriptor(self, k: int) -> Descriptor:
        row = self._connection.execute("SELECT data, crc FROM vector WHERE k = ?", (k,)).fetchone()
        if row is None:
            raise self._damaged(k)
        data, crc = row
        self._check_vector(k, data, crc)
        return np.frombuffer(data, "<f4").astype(np.float32, copy=False)

    def _check_vector(self, k: int, data: object, crc: int) -> None:
        if crc != vector_crc(k, data) or not self._is_vector(data):
            raise self._damaged(k)

    def _is_vector(self, data: object) -> bool:
        return isinstance(data, bytes) and len(data) == 4 * self._dimension

    def _damaged(self, k: int) -> StoreDamaged:
        return self.damaged(f"row {k}")

    def damaged(self, place: str) -> StoreDamaged:
        return StoreDamaged(
            f"{self._path} is damaged at {place}; restore it from a backup.", path=str(self._path)
        )
