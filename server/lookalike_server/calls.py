"""One call, from the moment it is let in until it has ended: what logs, metrics and traces tell of it."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,64}")


@dataclass(slots=True)
class CallRecord:
    """Attributes:
    method: "/lookalike.v1.EmbeddingService/Embed".
    request_id: what the caller sent as x-request-id, or a new one.
    peer: the caller's address, as "ipv4:10.0.0.7:41020".
    token: name of his token; "" where none is asked for.
    code, reason: how it ended, as "OK" and "", or "NOT_FOUND" and "COLLECTION_UNKNOWN".
    """

    method: str
    request_id: str
    peer: str
    started: float
    token: str = ""
    seconds: float = 0.0
    code: str = "OK"
    reason: str = ""


class CallObserver(Protocol):
    """Is told in the event loop, and must not block."""

    def around(self, record: CallRecord, metadata: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Stands around the call; when it is left the record is complete."""


def begin(method: str, peer: str, metadata: Iterable[tuple[str, Any]]) -> CallRecord:
    wish = next((value for key, value in metadata if key == "x-request-id"), "")
    known = isinstance(wish, str) and _REQUEST_ID.fullmatch(wish)
    return CallRecord(method, str(wish) if known else secrets.token_hex(8), peer, time.monotonic())
