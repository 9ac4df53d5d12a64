"""One call, from the moment it is let in until it has ended: what logs, metrics and traces tell of it."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lookalike_extractor.errors import LookalikeError

_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,64}")


class Stages(Protocol):
    """What is asked of an image's outcome (jobs.Outcome)."""

    error: LookalikeError | None
    decode_s: float
    queue_s: float
    device_s: float


@dataclass(slots=True)
class CallRecord:
    """Attributes:
    method: "/lookalike.v1.EmbeddingService/Embed".
    request_id: what the caller sent as x-request-id, or a new one.
    peer: the caller's address, as "ipv4:10.0.0.7:41020".
    token: name of his token; "" where none is asked for.
    code, reason: how it ended, as "OK" and "", or "NOT_FOUND" and "COLLECTION_UNKNOWN".
    images, failed: that went through the engine, and those of them that came to nothing.
    listeners: are told of images that have come out of the engine.
    """

    method: str
    request_id: str
    peer: str
    started: float
    token: str = ""
    seconds: float = 0.0
    code: str = "OK"
    reason: str = ""
    images: int = 0
    failed: int = 0
    listeners: list[Callable[[Sequence[Stages]], None]] = field(default_factory=list)

    def note(self, outcomes: Sequence[Stages]) -> None:
        """Takes note of images that have come out of the engine."""
        self.images += len(outcomes)
        self.failed += sum(outcome.error is not None for outcome in outcomes)
        for listener in self.listeners:
            listener(outcomes)


class CallObserver(Protocol):
    """Is told in the event loop, and must not block."""

    def around(self, record: CallRecord, metadata: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Stands around the call; when it is left the record is complete."""


def begin(method: str, peer: str, metadata: Iterable[tuple[str, Any]]) -> CallRecord:
    wish = next((value for key, value in metadata if key == "x-request-id"), "")
    known = isinstance(wish, str) and _REQUEST_ID.fullmatch(wish)
    # It is no secret, and asking the system for randomness would let other threads in between.
    request_id = str(wish) if known else f"{random.getrandbits(64):016x}"
    return CallRecord(method, request_id, peer, time.monotonic())
