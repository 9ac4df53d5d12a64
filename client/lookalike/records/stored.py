"""What a collection holds, and what becomes of what it is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from lookalike.records.record import Attributes, Record
from lookalike.records.server import EmbeddingSpace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Descriptor = NDArray[np.float32]


@dataclass(frozen=True, slots=True, repr=False)
class IndexInfo(Record):
    """How searches go through a collection, and what that takes."""

    kind: str
    """As it was chosen: "auto", "exact" or a factory string."""
    target_recall: float
    factory: str
    """What there is: a factory string of FAISS; empty for an exact scan."""
    recall: float
    """Measured share of the ten nearest that searches find."""
    indexed_count: int
    building: bool
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True, slots=True, repr=False)
class IndexEstimate(Record):
    """What an index would take."""

    factory: str
    memory_bytes: int
    disk_bytes: int
    """Of all files, ids and attributes not counted."""


@dataclass(frozen=True, slots=True, repr=False)
class CollectionInfo(Record):
    name: str
    recipe: str
    space: EmbeddingSpace
    item_count: int
    sequence: int
    """Number of the last write; it only grows. 0 when nothing was written yet."""
    created: datetime
    index: IndexInfo | None = None
    """None from a server that does not tell."""
    attribute_indexes: tuple[str, ...] = ()
    """Attributes that filters find through an index."""
    aliases: tuple[str, ...] = ()
    """Other names that stand for it now."""


@dataclass(frozen=True, slots=True, repr=False)
class VerifyReport(Record):
    """What was compared of a collection, and what is wrong."""

    problems: tuple[str, ...]
    item_count: int
    segment_count: int
    sequence: int

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True, repr=False)
class Item(Record):
    """A stored item. `descriptor` is float32 [dimension] of length 1 where it was asked for, else None."""

    id: str
    attributes: Attributes
    digest: bytes
    """SHA-256 of the image's bytes; empty when a descriptor was written."""
    sequence: int
    descriptor: Descriptor | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, repr=False)
class Failure(Record):
    """One image or item that came to nothing, while all others went on."""

    source: str
    """The file's path, or the place in the caller's list, as "images[3]"."""
    id: str
    """Id of the item; empty where images are only embedded."""
    reason: str
    """A word of the closed list in docs/api.md, as "IMAGE_TRUNCATED"."""
    message: str
    status: str = "INVALID_ARGUMENT"
    """Name of the status code: another one than this means that the image is not at fault."""


@dataclass(frozen=True, slots=True, repr=False)
class EmbedResult(Record):
    """What became of one image. Either `descriptor` or `failure` is set."""

    index: int
    """Place in the caller's images, from 0."""
    source: str
    descriptor: Descriptor | None = field(default=None, compare=False)
    """float32 [dimension] of length 1."""
    failure: Failure | None = None
    width: int = 0
    """Of the upright image, in pixels; 0 when its header was not readable."""
    height: int = 0
    digest: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class AddReport(Record):
    """What a collection was given: `added` items are on disk and found by searches."""

    added: int
    failed: tuple[Failure, ...] = ()
    sequence: int = 0
    """Number of the last write."""


@dataclass(frozen=True, slots=True, repr=False)
class ReembedReport(Record):
    """What became of a copy of a collection under another recipe."""

    item_count: int
    """Items of the copy."""
    copied: int
    """Items that were written to it now."""
    deleted: int
    """Items that were deleted from it because the source has them no longer."""
    missing: tuple[Failure, ...]
    """Items of the source that it lacks, and why."""
    switched: bool
    """Whether the alias stands for it."""
