"""The root of Lookalike's error tree, and its branches for images, graphs, backbones and recipes.

    LookalikeError
    ├── ImageError                 one picture cannot be used; its neighbours can
    │   ├── ImageMissing           nothing was sent
    │   ├── ImageFormatUnsupported not one of the formats we read
    │   ├── ImageTruncated         the file ends too early
    │   ├── ImageCorrupt           the file contradicts itself
    │   ├── ImageTooLarge          more bytes than the limit
    │   ├── PixelLimit             more pixels than the limit
    │   └── NoFace                 a recipe for faces found none
    ├── GraphError                 a request to the extractor that cannot be met
    │   ├── NodeUnknown
    │   ├── RequestInvalid         empty, ambiguous or contradictory
    │   ├── CaptureFailed          no way to turn the model into a graph
    │   └── VerificationFailed     the extractor and the model disagree
    ├── BackboneUnknown
    ├── WeightsUnavailable         cannot be downloaded or read
    ├── CheckpointMismatch         a checkpoint of another architecture
    ├── RecipeInvalid
    ├── ArtifactInvalid            a fitted file that cannot be read, or was fitted for other nodes or weights
    └── FitRefused                 nothing good can be learned from these photos

Each class carries the canonical name of its status code (as gRPC spells it) and a reason that programs can
test. The server adds its own branches in lookalike_server.errors.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class LookalikeError(Exception):
    """Something a caller can be told. The message says what was wrong, with which value, and what to do."""

    status: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.metadata)


def _rebuild(cls: type[LookalikeError], message: str, metadata: dict[str, str]) -> LookalikeError:
    return cls(message, **metadata)


class ImageError(LookalikeError):
    """One picture cannot be used; its neighbours can."""

    status = "INVALID_ARGUMENT"
    reason = "IMAGE_INVALID"


class ImageMissing(ImageError):
    reason = "IMAGE_MISSING"


class ImageFormatUnsupported(ImageError):
    reason = "IMAGE_FORMAT_UNSUPPORTED"


class ImageTruncated(ImageError):
    reason = "IMAGE_TRUNCATED"


class ImageCorrupt(ImageError):
    reason = "IMAGE_CORRUPT"


class ImageTooLarge(ImageError):
    reason = "IMAGE_TOO_LARGE"


class PixelLimit(ImageError):
    reason = "PIXEL_LIMIT"


class NoFace(ImageError):
    """For recipes that describe faces."""

    reason = "NO_FACE"


class GraphError(LookalikeError):
    """A request to the extractor that cannot be met."""

    status = "INVALID_ARGUMENT"
    reason = "GRAPH_INVALID"


class NodeUnknown(GraphError, ValueError):
    status = "NOT_FOUND"
    reason = "NODE_UNKNOWN"


class RequestInvalid(GraphError, ValueError):
    reason = "NODE_REQUEST_INVALID"


class CaptureFailed(GraphError):
    status = "FAILED_PRECONDITION"
    reason = "CAPTURE_FAILED"


class VerificationFailed(GraphError):
    status = "FAILED_PRECONDITION"
    reason = "VERIFICATION_FAILED"


class BackboneUnknown(LookalikeError):
    status = "NOT_FOUND"
    reason = "BACKBONE_UNKNOWN"


class WeightsUnavailable(LookalikeError):
    status = "FAILED_PRECONDITION"
    reason = "WEIGHTS_UNAVAILABLE"


class CheckpointMismatch(LookalikeError):
    status = "FAILED_PRECONDITION"
    reason = "CHECKPOINT_MISMATCH"


class RecipeInvalid(LookalikeError):
    status = "INVALID_ARGUMENT"
    reason = "RECIPE_INVALID"


class ArtifactInvalid(LookalikeError):
    status = "FAILED_PRECONDITION"
    reason = "ARTIFACT_INVALID"


class FitRefused(LookalikeError):
    """A fit would be meaningless or would harm. The message has its numbers."""

    status = "FAILED_PRECONDITION"
    reason = "FIT_REFUSED"


def did_you_mean(name: str, known: Iterable[str], most: int = 3) -> str:
    """Returns " Did you mean 'a', 'b'?" with the nearest of `known`, or "" when none is near."""
    # No name is that long; comparing a megabyte would take seconds.
    near = difflib.get_close_matches(name[:200], list(known), n=most, cutoff=0.5)
    return f" Did you mean {', '.join(repr(n) for n in near)}?" if near else ""
