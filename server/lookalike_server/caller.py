"""Who calls, and until when he waits: set by the interceptor, read by the engine's door."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lookalike_server.calls import CallRecord, Stages
    from lookalike_server.quotas import Quota


@dataclass(frozen=True)
class Caller:
    """Attributes:
    name: callers of one name share their turns: a token's name, or else the peer's address.
    deadline: by the monotonic clock.
    quota: what his token may ask for; None: anything.
    record: of the call.
    """

    name: str = ""
    deadline: float = math.inf
    quota: Quota | None = None
    record: CallRecord | None = None


NOBODY = Caller()

CALLER: ContextVar[Caller] = ContextVar("caller", default=NOBODY)


def caller_of(context: Any) -> Caller:
    """The caller of a call (grpc.aio.ServicerContext), by his address.

    Without the port: more connections are no more callers.
    """
    left = context.time_remaining()
    deadline = math.inf if left is None else time.monotonic() + left
    kind, _, address = context.peer().partition(":")
    return Caller(address.rpartition(":")[0] if kind in ("ipv4", "ipv6") else kind, deadline)


def share(images: int, *, wait: bool) -> AbstractAsyncContextManager[None]:
    """Counts images against the caller's quota while they are on the road. See Quota.hold."""
    quota = CALLER.get().quota
    return nullcontext() if quota is None else quota.hold(images, wait=wait)


def note(outcomes: Sequence[Stages]) -> None:
    """Tells the record of the call of images that have come out of the engine."""
    record = CALLER.get().record
    if record is not None:
        record.note(outcomes)
