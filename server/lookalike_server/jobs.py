"""What travels through the engine: one Job for each image and model, and the Call its caller waits for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from lookalike_extractor.errors import LookalikeError
from lookalike_extractor.images import Header
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lookalike_server.served import Model

Source = bytes | NDArray[np.uint8]

Key = tuple[bytes, tuple[int, ...], int, bool]
"""Of images that share one result: digest, shape of pixels (of files none), number of the model, lane."""


@dataclass(slots=True, eq=False)
class Outcome:
    """What became of one image."""

    error: LookalikeError | None = None
    descriptors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """By recipe, float32 [d], of L2 length 1. Empty when it failed."""
    width: int = 0
    height: int = 0
    """Of the upright image, in pixels; 0 when its header was not readable."""
    digest: bytes = b""
    """SHA-256 of the bytes that were sent; empty when the image failed."""
    origin: str = "computed"
    """Or "cached": known before; "shared": computed for an identical image that was on the road already;
    "dropped": its caller had left."""
    decode_s: float = 0.0
    queue_s: float = 0.0
    device_s: float = 0.0
    """Seconds of decoding, of waiting for the device, and of the batch that held the image; 0 unless it was
    computed."""


@dataclass(slots=True, eq=False)
class Call:
    """What the images of one call share."""

    done: asyncio.Future[None]
    pending: int
    bulk: bool
    client: str = ""
    """Whom turns are taken between."""
    deadline: float = math.inf
    """By the monotonic clock."""
    probe: bool = False
    """A canary: it needs no room, and no stored result may answer for it."""
    admitted: float = 0.0
    """When it was let in, by the monotonic clock."""
    predicted: float = 0.0
    """The seconds it was to take from then; 0 where nobody said."""
    left: bool = False
    """True once the caller has gone: its jobs are dropped unseen."""

    def gone(self, now: float) -> bool:
        return self.left or now >= self.deadline


@dataclass(slots=True, eq=False)
class Job:
    """One image on its way: its input, the place for its result, its times."""

    call: Call
    source: Source
    model: Model
    size: int
    """Bytes it holds, as it was sent and decoded."""
    outcome: Outcome = field(default_factory=Outcome)
    header: Header | None = None
    """What the door has read of a file."""
    pixels: NDArray[Any] | None = None
    """uint8 [h, w, 3] at the model's input size, once decoded."""
    digest: bytes = b""
    key: Key | None = None
    """Set while others may follow it."""
    followers: list[Job] = field(default_factory=list)
    """Identical images that wait for its result."""
    alone: bool = False
    """It was let down by the one it followed: it goes its own way now."""
    on_gpu: bool | None = None
    """Whether the GPU decodes it; None: that is open (gpu_stage.py)."""
    replica: int | None = None
    """Which one must compute it; None: any may."""
    ready_at: float = 0.0
    """When it was decoded, by the monotonic clock."""
    finished: bool = False

    @classmethod
    def of(cls, call: Call, source: Source, model: Model) -> Job:
        """A new job, with its size."""
        sent = len(source) if isinstance(source, bytes) else source.nbytes
        size = model.preprocessing
        return cls(call, source, model, sent + size.height * size.width * 3)

    def wanted(self, now: float) -> bool:
        """Whether anybody still waits for its result."""
        return not self.call.gone(now) or any(not job.call.gone(now) for job in tuple(self.followers))


@dataclass(slots=True, eq=False)
class Batch:
    """Jobs that go through a model together, and what came of it."""

    jobs: list[Job]
    released: str
    """Why no more were taken: "drained" (all that waited are in it), "full", "efficient" (a larger one would
    only take longer), "deadline" or "shared" (the rest is for other replicas, which are free too)."""
    dropped: list[Job] = field(default_factory=list)
    """Found on the way with nobody waiting for them."""
    replica: int = 0
    """Which one computes it."""
    started: float = 0.0
    seconds: float = 0.0
    descriptors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """By recipe, float32 [n, d]."""
    finite: NDArray[np.bool_] | None = None
    """[n], whether all numbers of a row are."""
    error: LookalikeError | None = None

    @property
    def model(self) -> Model:
        return self.jobs[0].model


def joined(outcomes: Sequence[Outcome], names: Sequence[str]) -> Outcome:
    """One outcome of an image that went through several models, with the descriptors that were asked for."""
    joined = outcomes[0]
    for other in outcomes[1:]:
        joined.error = joined.error or other.error
        joined.descriptors |= other.descriptors
        joined.decode_s += other.decode_s
        joined.queue_s = max(joined.queue_s, other.queue_s)
        joined.device_s += other.device_s
    joined.descriptors = {} if joined.error else {name: joined.descriptors[name] for name in names}
    return joined
