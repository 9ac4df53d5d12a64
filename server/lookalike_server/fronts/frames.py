"""What a front-end and the engine say to each other. Both are of one version: one has started the other.

A frame is a kind, the number of a call (0: of no call) and bytes:

    to the engine    READY, FAILED (why)                                 of the front-end itself
                     START (Start), then PIECE* MESSAGE, ..., END        of a call
                     CANCEL                                              the caller has left
    to the front-end STOP (seconds for its calls; nothing: at once)      of the front-end itself
                     PIECE* MESSAGE, ..., END (Status)                   of a call
    both ways        CREDIT (bytes)                                      so many more may be sent
                     PULSE                                               are you there? and: yes
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

HEAD = struct.Struct("<BQI")
"""Kind, call, length of what follows."""

READY, FAILED, STOP, START, PIECE, MESSAGE, END, CANCEL, CREDIT, PULSE = range(10)

PIECE_BYTES = 128 << 10
"""Messages above it go in pieces, between which those of other calls find their way."""

Metadata = tuple[tuple[str, str | bytes], ...]


class Start(NamedTuple):
    """What is known of a call before its messages.

    Attributes:
        left: seconds until its deadline; None: it has none.
        sends: its first message comes without being asked for.
    """

    method: str
    peer: str
    left: float | None
    sends: bool
    metadata: Metadata

    def encode(self) -> bytes:
        return json.dumps([*self[:-1], _as_text(self.metadata)]).encode()

    @classmethod
    def decode(cls, data: bytes) -> Start:
        method, peer, left, sends, metadata = json.loads(data.decode())
        return cls(method, peer, left, sends, _from_text(metadata))


class Status(NamedTuple):
    """How a call has ended, by gRPC's number."""

    code: int = 0
    message: str = ""
    trailers: Metadata = ()

    def encode(self) -> bytes:
        return json.dumps([self.code, self.message, _as_text(self.trailers)]).encode() if self.code else b""

    @classmethod
    def decode(cls, data: bytes) -> Status:
        if not data:
            return cls()
        code, message, trailers = json.loads(data.decode())
        return cls(code, message, _from_text(trailers))


def _as_text(metadata: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
    """Values of keys that end in -bin are bytes, and JSON has none."""
    return [(key, value.decode("latin-1") if isinstance(value, bytes) else value) for key, value in metadata]


def _from_text(pairs: Iterable[list[str]]) -> Metadata:
    return tuple((key, value.encode("latin-1") if key.endswith("-bin") else value) for key, value in pairs)
