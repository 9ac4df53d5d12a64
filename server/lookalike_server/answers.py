"""What a collection answers with: frozen values, made from keys that a view found and rows of the store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lookalike_server.rows import Row
from lookalike_server.view import Found


@dataclass(frozen=True)
class Hit:
    """An item that a query found. `score` is the cosine, -1..1."""

    id: str
    score: float
    attributes_json: str


@dataclass(frozen=True)
class SearchResult:
    """The hits of each query, nearest first, and the sequence number of the last write that was seen."""

    sequence: int
    hits: list[list[Hit]]


@dataclass(frozen=True)
class Snapshot:
    """All items of one state, by ascending sequence numbers; row i of each list is one item.

    `keys` are their own sequence numbers int64 [n]; `reference` says which fit the second filter, bool [n].
    """

    sequence: int
    keys: NDArray[np.int64]
    ids: list[str]
    descriptors: NDArray[np.float32]
    digests: list[bytes]
    attributes_json: list[str]
    reference: NDArray[np.bool_]


def hits_of(found: Found, rows: dict[int, Row], k: int, min_score: float | None, own: str) -> list[Hit]:
    """Returns the k best of what was found, the item `own` left out, items of equal score by their ids."""
    hits = [
        Hit(rows[key].id, score, rows[key].attributes_json)
        for key, score in zip(found.keys.tolist(), found.scores.tolist(), strict=True)
        if rows[key].id != own and (min_score is None or score >= min_score)
    ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]
