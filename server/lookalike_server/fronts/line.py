"""One call on the bus, at either end: its messages, in order, and no more of them than the other end takes.

Each end may send what it has credit for. Credit comes back as messages are taken, so that a slow reader holds
up the one who sends to him and nobody else, and what lies between them is bounded: by WINDOW and the one
message that passed it.
"""

from __future__ import annotations

import asyncio
from collections import deque

from lookalike_server.fronts.bus import Bus
from lookalike_server.fronts.frames import CREDIT, END, MESSAGE, PIECE, PIECE_BYTES

WINDOW = 256 << 10
"""Bytes of a call's messages one way that may be on the bus and not yet taken."""

# Empty messages are not without weight.
_LEAST_WEIGHT = 64

_CREDIT_BYTES = 8


class Line:
    """Args:
        credit: for what this end sends.

    Attributes:
        call: its number.
        ending: what came with the END; None while there is none.
    """

    def __init__(self, bus: Bus, call: int, credit: int) -> None:
        self.call = call
        self.ending: bytes | None = None
        self._bus, self._credit = bus, credit
        self._pieces: list[bytes] = []
        self._messages: deque[bytes] = deque()
        self._came, self._may_send = _Bell(), _Bell()

    async def receive(self) -> bytes | None:
        """Returns the next message; None when none will come."""
        while not self._messages:
            if self.ending is not None:
                return None
            await self._came.wait()
        return self._messages.popleft()

    def grant(self, size: int) -> None:
        """Lets the other end send so many bytes more: the first time, and for each message that was taken."""
        if self.ending is None:
            self._bus.send(CREDIT, self.call, size.to_bytes(_CREDIT_BYTES, "little"))

    async def credit(self) -> None:
        """Waits until a message may be sent."""
        while self._credit <= 0:
            await self._may_send.wait()

    async def send(self, message: bytes) -> None:
        """Sends a message, whether there is credit for it or not."""
        self._credit -= weight(message)
        await self._bus.room()
        view, at = memoryview(message), 0
        while len(message) - at > PIECE_BYTES:
            self._bus.send(PIECE, self.call, view[at : at + PIECE_BYTES])
            at += PIECE_BYTES
            await self._bus.room()
        self._bus.send(MESSAGE, self.call, view[at:])

    def end(self, payload: bytes = b"") -> None:
        """Says that no more messages come."""
        self._bus.send(END, self.call, payload)

    def hear(self, kind: int, payload: bytes) -> None:
        """Takes a frame of this call."""
        if kind == MESSAGE:
            self._messages.append(b"".join([*self._pieces, payload]) if self._pieces else payload)
            self._pieces.clear()
            self._came.ring()
        elif kind == PIECE:
            self._pieces.append(payload)
        elif kind == CREDIT:
            self._credit += int.from_bytes(payload, "little")
            self._may_send.ring()
        elif kind == END:
            self.ending = payload
            self._came.ring()


def weight(message: bytes) -> int:
    """What a message takes of the credit."""
    return max(len(message), _LEAST_WEIGHT)


class _Bell:
    """Wakes the one who waits for it."""

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def ring(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
