"""What stands under the services: a keeper of collections. The embedded engine (catalog.py) is one.

Another keeper has these calls with the same meaning, and passes tests/server/test_backend_contract.py.
Images, calibration and duplicates live above it, so that every keeper has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from lookalike_extractor.recipe import Space
from numpy.typing import NDArray

from lookalike_server.answers import Ask, SearchResult, Snapshot
from lookalike_server.rows import NewRow, Row, Written
from lookalike_server.upkeep import Verified


class CollectionBackend(Protocol):
    """Items with descriptors of one space. Any thread may call it; calls block.

    What a write returned is durable, and every search that begins later sees it.
    """

    name: str
    space: Space

    @property
    def count(self) -> int: ...

    @property
    def sequence(self) -> int:
        """Number of the last write: it grows with every change, and only then."""

    def upsert(self, rows: Sequence[NewRow]) -> Written:
        """Inserts or replaces the rows: all or, when it raises, none."""

    def delete(self, ids: Sequence[str]) -> Written:
        """Deletes the items of those ids that are there."""

    def get(self, ids: Sequence[str], *, descriptors: bool = False) -> dict[str, Row]:
        """Returns those items that are there, by id."""

    def list(self, after: int, limit: int, where: str = "", *, descriptors: bool = False) -> list[Row]:
        """Returns the next items that fit, in the order of their last write."""

    def ask(
        self, descriptors: NDArray[np.float32], ask: Ask, exclude: Sequence[str] | None = None
    ) -> SearchResult:
        """Finds the nearest, or with `ask.every` all that are near enough, for queries float32 [q, d]."""

    def snapshot(self, where: str = "") -> Snapshot:
        """Returns all items that fit, as they are at one moment."""

    def set_document(self, name: str, value_json: str) -> None:
        """Keeps a small JSON text beside the items; "" removes it."""

    def get_document(self, name: str) -> str | None: ...

    def verify(self) -> Verified:
        """Reads everything and compares all copies of it."""


class IndexBackend(Protocol):
    """All collections. Each call raises the errors that catalog.py names."""

    def create(self, name: str, space: Space) -> CollectionBackend:
        """Makes an empty collection, which is durable then."""

    def get(self, name: str) -> CollectionBackend: ...

    def list(self) -> Sequence[CollectionBackend]:
        """Returns the collections by name."""

    def delete(self, name: str) -> None:
        """Deletes the collection, for good."""

    def close(self) -> None:
        """Ends what is under way. What was written is there when it is opened again."""
