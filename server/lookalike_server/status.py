"""What a collection's index is like, and what one would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss

from lookalike_server.building import IndexSettings
from lookalike_server.indexer import Indexer, settings_of
from lookalike_server.reader import Reader
from lookalike_server.structure import estimated
from lookalike_server.view import View


@dataclass(frozen=True)
class IndexStatus:
    """The index of a collection at this moment."""

    settings: IndexSettings
    factory: str
    """What searches go through; "" is an exact scan."""
    recall: float
    """Measured share of the ten nearest that are found; of several indexes the mean over their items."""
    indexed: int
    """Items in it, deleted ones included; all others are scanned."""
    building: bool
    memory: int
    """Bytes of it, and of descriptors that are not in segments."""
    disk: int
    """Bytes of all files of the collection."""
    attributes: Sequence[str]
    """Those that filters find through an index."""


def index_status(view: View, reader: Reader, folder: Path, indexer: Indexer) -> IndexStatus:
    sizes = [len(one.keys) for one in view.indexes]
    hits = sum(one.recall * size for one, size in zip(view.indexes, sizes, strict=True))
    loose = sum(part.count for part in view.parts if not part.sealed) * (4 * view.dimension + 8)
    return IndexStatus(
        settings=settings_of(reader.document),
        factory=", ".join(sorted({one.factory for one in view.indexes})),
        recall=hits / sum(sizes) if sizes else 1.0,
        indexed=sum(sizes),
        building=indexer.building,
        memory=sum(one.memory for one in view.indexes) + loose,
        attributes=reader.indexed_attributes(),
        disk=sum(size_on_disk(path) for path in folder.rglob("*")),
    )


def size_on_disk(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # removed meanwhile
        return 0


@dataclass(frozen=True)
class Estimate:
    """What a collection would take. Bytes; attributes and ids are not counted."""

    factory: str
    memory: int
    """Of the index alone: what should be there besides the system's cache of files."""
    disk: int


def estimate(settings: IndexSettings, count: int, dimension: int) -> Estimate:
    """Returns what a collection of so many items would take. Raises ArgumentInvalid for bad settings."""
    factory = settings.factory(count, dimension)
    rows = count * dimension * 4
    # Descriptors lie in the store, where pages leave a little room, and in segments.
    disk = int(rows * 1.06) + count * 100 + rows + count * 8
    if not factory:
        return Estimate("", 0, disk)
    index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    memory = estimated(index, count) + 16 * count
    return Estimate(factory, memory, disk + memory)
