"""Is this picture a copy of an item that is there? And: add it only if it is not, in one step."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lookalike_server.rows import Descriptor, NewRow, Written

from .candidates import TOLERANCE

if TYPE_CHECKING:
    from lookalike_server.collection import Collection
    from lookalike_server.view import View
    from lookalike_server.writing import Writing

MOST_MATCHES = 10


@dataclass(frozen=True)
class Match:
    """An item that a picture is a copy of. exact: the same file, byte for byte."""

    id: str
    score: float
    exact: bool
    attributes_json: str


@dataclass(frozen=True)
class Matches:
    """Nearest first, and the sequence number of the last write that was seen."""

    matches: list[Match]
    sequence: int


def copies_of(
    collection: Collection, descriptor: Descriptor, digest: bytes, threshold: float, where: str = ""
) -> Matches:
    """The items, at most 10, whose similarity to the descriptor is at least the threshold. Blocks.

    digest: SHA-256 of the picture's file, or b"".
    """
    found = collection.search(descriptor[None], MOST_MATCHES, min_score=threshold - TOLERANCE, where=where)
    hits = found.hits[0]
    rows = collection.get([hit.id for hit in hits])
    matches = [
        Match(hit.id, hit.score, bool(digest) and rows[hit.id].digest == digest, hit.attributes_json)
        for hit in hits
        if hit.id in rows
    ]
    return Matches(sorted(matches, key=lambda match: not match.exact), found.sequence)


def add_unless(collection: Collection, row: NewRow, after: int, threshold: float) -> Future[Written]:
    """Begins to write the row, unless an item written after that sequence number is a copy of it.

    The caller has looked at the items up to `after`, so that the thread that writes has little to compare.
    """
    return collection.submit_upsert_if(row, _no_copy_since(after, row.descriptor, threshold))


def _no_copy_since(after: int, descriptor: Descriptor, threshold: float) -> Callable[[View, Writing], bool]:
    wide = descriptor.astype(np.float64)

    def wanted(view: View, writing: Writing) -> bool:
        vectors = [vectors for _, vectors in _written_since(view, after, writing.removed)]
        vectors += [vector[None] for vector in writing.added.values()]
        return not any((part.astype(np.float64) @ wide >= threshold - TOLERANCE).any() for part in vectors)

    return wanted


def _written_since(view: View, after: int, removed: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The keys greater than `after`, and their vectors, by parts; those of removed rows left out."""
    found = []
    for part in view.parts:
        begin = int(np.searchsorted(part.keys[: part.count], after, "right"))
        keys = part.keys[begin : part.count]
        kept = part.alive[begin:] & ~np.isin(keys, removed)
        if kept.any():
            found.append((keys[kept], part.vectors[begin : part.count][kept]))
    return found
