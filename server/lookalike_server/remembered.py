"""Rows of hits that were read lately.

A key is a version of an item: what it stands for never changes, so what was read and checked once is true for
every state in which the key is there.
"""

from __future__ import annotations

from collections.abc import Iterable

from lookalike_server.rows import Row

MOST_BYTES = 32 << 20
_ROW_BYTES = 400  # of an empty row, about


class Remembered:
    """Rows by key. Threads may call it without a lock: at worst a row is forgotten that need not be.

    There are two generations: what is asked for moves to the younger one; when that is full the older one is
    forgotten. So what is asked for often stays.

    Args:
        most_bytes: of each generation.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._young: dict[int, Row] = {}
        self._old: dict[int, Row] = {}

    def get(self, keys: Iterable[int]) -> dict[int, Row]:
        """Returns those rows that are remembered."""
        young, old = self._young, self._old
        found: dict[int, Row] = {}
        for key in keys:
            row = young.get(key)
            if row is None:
                row = old.get(key)
                if row is None:
                    continue
                self.put(row)
            found[key] = row
        return found

    def put(self, row: Row) -> None:
        if self._bytes > self._most_bytes:
            self._young, self._old, self._bytes = {}, self._young, 0
        self._young[row.k] = row
        self._bytes += _ROW_BYTES + len(row.id) + len(row.attributes_json)
