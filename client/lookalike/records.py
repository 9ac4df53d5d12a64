"""What calls return: frozen records that hold no connection, so they may be kept, compared and pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Descriptor = NDArray[np.float32]

Attributes = Mapping[str, Any]


class Record:
    """A short repr: floats with four digits, arrays as `float32[1280]`, empty fields left out."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = ((f.name, getattr(self, f.name)) for f in fields(self) if f.repr)  # type: ignore[arg-type]
        parts = [f"{name}={_short(value)}" for name, value in shown if not _is_empty(value)]
        return f"{type(self).__name__}({', '.join(parts)})"


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str | bytes | tuple | Mapping) and not value)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, bytes):
        return f"{value.hex()[:12]}…"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    return repr(value)


@dataclass(frozen=True, slots=True, repr=False)
class EmbeddingSpace(Record):
    """A space in which descriptors may be compared: only those whose spaces' ids are equal."""

    id: str
    dimension: int
    metric: str
    """As "cosine": similarity from -1 to 1, higher is nearer."""
    recipe: str


@dataclass(frozen=True, slots=True, repr=False)
class Limits(Record):
    """The bounds a server enforces. `max_message_bytes` counts a whole message, either way."""

    max_images_per_message: int
    max_message_bytes: int
    max_image_bytes: int
    max_image_pixels: int
    max_k: int


@dataclass(frozen=True, slots=True, repr=False)
class ServerInfo(Record):
    version: str
    device: str
    """What computes descriptors, as "cpu" or "cuda:0"."""
    limits: Limits


@dataclass(frozen=True, slots=True, repr=False)
class TapInfo(Record):
    """One node of a backbone whose output a recipe pools."""

    node: str
    pooling: str


@dataclass(frozen=True, slots=True, repr=False)
class RecipeInfo(Record):
    """One named way from an image to a descriptor."""

    name: str
    backbone: str
    taps: tuple[TapInfo, ...]
    input_height: int
    input_width: int
    space: EmbeddingSpace
    duplicate_threshold: float
    """Least similarity of two images that are taken for copies of one picture unless told otherwise."""
    runtime: str = ""
    """What the backbone runs in, as "eager"; "" from a server that does not tell."""
    ready: bool = True
    """False while images do not come through."""


@dataclass(frozen=True, slots=True, repr=False)
class BackboneInfo(Record):
    name: str
    weights: str
    """Where the weights come from: "packaged", "download" or "none" (a checkpoint must be given)."""
    loaded: bool
    """Whether a recipe of the server uses it."""


@dataclass(frozen=True, slots=True, repr=False)
class NodeInfo(Record):
    """A named place in a backbone's graph."""

    name: str
    operation: str
    shape: tuple[int, ...]
    """Shape of the output for one image; empty where the output is not a tensor."""
    dtype: str
    stride: int
    """Input pixels for one step of the output's width; 0 where the output is not a feature map."""
    parameters: int
    flops: int
    cumulative_flops: int
    """Floating-point operations from the input up to this node, counting only what the node needs."""


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
class Hit(Record):
    """One item that a query found."""

    id: str
    score: float
    attributes: Attributes
    group: str | float | bool | None = None
    """Value of the attribute that hits are grouped by."""


@dataclass(frozen=True, slots=True, repr=False)
class Explanation(Record):
    """How a search went."""

    plan: str
    items: int
    fitting: int
    """Items that the filter leaves."""
    compared: int
    """Descriptors that each query was compared with."""
    queries: int
    """Queries searched in one pass, those of other callers included."""
    queries_seconds: float
    """Until the queries' descriptors were there; the others follow it."""
    wait_seconds: float
    filter_seconds: float
    scan_seconds: float
    rows_seconds: float


class Hits(list[Hit]):
    """The hits of one query, nearest first."""

    more: bool = False
    """Whether there are hits beyond these."""
    sequence: int = 0
    """Number of the last write that the search saw."""
    explanation: Explanation | None = None
    """Where it was asked for."""


@dataclass(frozen=True, slots=True, repr=False)
class Threshold(Record):
    """What is known of the least score for one precision. Intervals are of 95 %."""

    precision: float
    min_score: float | None
    """None when no score reaches the precision."""
    min_score_low: float | None
    min_score_high: float | None
    """The interval of `min_score`, by drawing pictures again; None where no score reached the precision."""
    reached: float
    """Precision of the pairs at or over `min_score`."""
    reached_low: float
    reached_high: float
    recall: float
    """Share of the pairs of the same picture that are at or over `min_score`."""


@dataclass(frozen=True, slots=True, repr=False)
class Calibration(Record):
    """Which score means which precision in a collection."""

    collection: str
    thresholds: tuple[Threshold, ...]
    """By ascending precision."""
    same_pairs: int
    different_pairs: int
    missed_pairs: int
    """Pairs of the same picture that the search did not return."""
    item_count: int
    """Items of the collection when it was set."""
    created: datetime
    normalized: bool = False
    """Whether it is of searches with `normalize`."""


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
class DuplicateJob(Record):
    """How far a search for near-duplicates is."""

    id: str
    collection: str
    threshold: float
    policy: str
    """One of "largest", "oldest", "most_connected", "sharpest", or "max:" or "min:" and an attribute."""
    state: str
    """One of "pending", "running", "succeeded", "failed" or "cancelled"."""
    items_done: int
    items_total: int
    pairs_found: int
    group_count: int
    sequence: int
    sampled_pairs: int = 0
    """Above 50,000 different images only likely pairs are compared; then an exact search of a sample found so
    many pairs. 0 when every pair was compared."""
    sampled_pairs_found: int = 0
    """Those of `sampled_pairs` that the job found too: their ratio estimates its recall."""
    remaining: float | None = None
    """Seconds that it will still take, as it looks now; None while that is unknown."""
    precision: float | None = None
    """What was asked for in place of a threshold; None where a threshold was."""
    where: str = ""
    since_sequence: int = 0
    reference: str = ""
    created: datetime | None = None
    ended: datetime | None = None
    error: str = ""
    """Why it failed."""

    def recall(self) -> tuple[float, float] | None:
        """The 95 % interval of the search's recall, by its sample; None when every pair was compared."""
        return share_interval(self.sampled_pairs_found, self.sampled_pairs) if self.sampled_pairs else None


def share_interval(part: int, whole: int) -> tuple[float, float]:
    """The 95 % interval of a share that was sampled: Wilson, "Probable inference", JASA 22, 1927."""
    z2 = 1.96**2
    share, weight = part / whole, 1 + z2 / whole
    middle = (share + z2 / (2 * whole)) / weight
    reach = 1.96 / weight * (share * (1 - share) / whole + z2 / (4 * whole**2)) ** 0.5
    return max(0.0, middle - reach), min(1.0, middle + reach)


@dataclass(frozen=True, slots=True, repr=False)
class DuplicateMember(Record):
    """One item of a group of near-duplicates."""

    id: str
    score: float
    """Similarity to the group's representative; 1 for the representative itself."""
    exact: bool
    """Whether its file is the representative's, byte for byte."""
    attributes: Attributes


@dataclass(frozen=True, slots=True, repr=False)
class DuplicateGroup(Record):
    """Items that show the same picture: the representative (worth keeping) first, then nearest first."""

    representative_id: str
    members: tuple[DuplicateMember, ...]


@dataclass(frozen=True, slots=True, repr=False)
class DuplicateMatch(Record):
    """An item that a picture is a copy of."""

    id: str
    score: float
    exact: bool
    """Whether its file is the picture's, byte for byte."""
    attributes: Attributes


@dataclass(frozen=True, slots=True, repr=False)
class DuplicateCheck(Record):
    """What a picture is a copy of; true when it is a copy of anything."""

    matches: tuple[DuplicateMatch, ...]
    """Nearest first, at most 10."""
    threshold: float
    sequence: int
    """Number of the write that added it, or of the last write that was seen."""
    added: bool = False
    """Whether it was written: never by `check_duplicate`."""

    def __bool__(self) -> bool:
        return bool(self.matches)
