"""What a call can end in, one class for each status code of the server.

    LookalikeError
    ├── InvalidArgument        the request is wrong; it will be wrong again
    │   └── ImageUnusable      a picture that cannot be read on this side; nothing of it was sent
    ├── NotFound
    ├── AlreadyExists
    ├── FailedPrecondition     right in itself, but not with things as they are
    │   └── ExtraMissing       a part of Lookalike that is not installed
    ├── ResourceExhausted      the server is full, or its disk is; try again later
    ├── DeadlineExceeded
    ├── Unavailable            nobody answers there, or the server is stopping
    ├── Cancelled
    ├── Aborted                another writer was faster
    ├── OutOfRange
    ├── Unauthenticated
    ├── PermissionDenied
    ├── Unimplemented          the server is older than this client
    ├── DataLoss               stored data is damaged
    ├── InternalError          the server's fault
    └── UnknownError           the server did not say

`reason` is a word of the server's closed list (docs/api.md), as "SPACE_MISMATCH", for programs to test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from lookalike.records import AddReport


class LookalikeError(Exception):
    """A call that failed. `str()` of it is one line for people."""

    code: ClassVar[str] = ""
    retry_after: float | None = None
    """Seconds after which the server says it is worth trying again."""
    report: AddReport | None = None
    """What was on disk when a long write ended in this error; None for other calls."""

    def __init__(self, message: str, reason: str = "", metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})


class InvalidArgument(LookalikeError):
    code = "INVALID_ARGUMENT"


class ImageUnusable(InvalidArgument):
    """A picture that cannot be read on this side; nothing of it was sent."""


class NotFound(LookalikeError):
    code = "NOT_FOUND"


class AlreadyExists(LookalikeError):
    code = "ALREADY_EXISTS"


class FailedPrecondition(LookalikeError):
    code = "FAILED_PRECONDITION"


class ExtraMissing(FailedPrecondition):
    """A part of Lookalike that is not installed. The message holds the pip line that brings it."""


class ResourceExhausted(LookalikeError):
    code = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(LookalikeError):
    code = "DEADLINE_EXCEEDED"


class Unavailable(LookalikeError):
    code = "UNAVAILABLE"


class Cancelled(LookalikeError):
    code = "CANCELLED"


class Aborted(LookalikeError):
    code = "ABORTED"


class OutOfRange(LookalikeError):
    code = "OUT_OF_RANGE"


class Unauthenticated(LookalikeError):
    code = "UNAUTHENTICATED"


class PermissionDenied(LookalikeError):
    code = "PERMISSION_DENIED"


class Unimplemented(LookalikeError):
    code = "UNIMPLEMENTED"


class DataLoss(LookalikeError):
    code = "DATA_LOSS"


class InternalError(LookalikeError):
    code = "INTERNAL"


class UnknownError(LookalikeError):
    code = "UNKNOWN"
