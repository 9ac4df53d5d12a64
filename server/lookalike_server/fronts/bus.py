"""The socket between a front-end and the engine: frames in, frames out, many in one read or write."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from lookalike_server.fronts.frames import HEAD, PIECE_BYTES

Payload = bytes | memoryview

_READ_BYTES = 4 * PIECE_BYTES
# Of one write. The transport copies what the system does not take at once, so it is given little at a time.
_WRITE_BYTES = 256 << 10
# Once so much waits to be written, those who send messages wait.
_MOST_WAITING = 1 << 20


class Bus(asyncio.BufferedProtocol):
    """One end of it; of one event loop.

    Args:
        receive: is called with kind, call and payload of each frame.
        lost: is called once the other end is gone.
    """

    def __init__(self, receive: Callable[[int, int, bytes], None], lost: Callable[[], None]) -> None:
        self._receive, self._lost = receive, lost
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray(_READ_BYTES)
        self._filled = 0
        self._out: deque[Payload] = deque()
        self._waiting = 0
        self._free = asyncio.Event()
        self._free.set()
        self._flushing = self._paused = self._gone = False

    @classmethod
    async def connect(
        cls, end: socket.socket, receive: Callable[[int, int, bytes], None], lost: Callable[[], None]
    ) -> Bus:
        end.setblocking(False)
        loop = asyncio.get_running_loop()
        _, bus = await loop.create_connection(lambda: cls(receive, lost), sock=end)
        return bus

    # Out.

    def send(self, kind: int, call: int, payload: Payload = b"") -> None:
        """Sends a frame, with all others of this turn of the loop; nothing once the other end is gone."""
        if self._gone:
            return
        self._out.append(HEAD.pack(kind, call, len(payload)))
        if payload:
            self._out.append(payload)
        self._waiting += HEAD.size + len(payload)
        if self._waiting > _MOST_WAITING:
            self._free.clear()
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    async def room(self) -> None:
        """Waits while much is still to be written. What is small and must go is sent without."""
        await self._free.wait()

    def _flush(self) -> None:
        while self._out and not self._paused:
            some, size = [], 0
            while self._out and size < _WRITE_BYTES:
                some.append(self._out.popleft())
                size += len(some[-1])
            self._waiting -= size
            self._transport.write(b"".join(some))
        self._flushing = self._paused and bool(self._out)
        if self._waiting <= _MOST_WAITING:
            self._free.set()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    # In.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)

    def connection_lost(self, error: Exception | None) -> None:
        self._gone = True
        self._out.clear()
        self._free.set()
        self._lost()

    def get_buffer(self, sizehint: int) -> Any:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        filled, at, view = self._filled + nbytes, 0, memoryview(self._buffer)
        while filled - at >= HEAD.size:
            kind, call, size = HEAD.unpack_from(view, at)
            begin, end = at + HEAD.size, at + HEAD.size + size
            if end > filled:
                self._make_room(end - at)
                break
            self._receive(kind, call, bytes(view[begin:end]))
            at = end
        self._filled = filled - at
        self._buffer[: self._filled] = bytes(view[at:filled])

    def _make_room(self, size: int) -> None:
        if size > len(self._buffer):
            self._buffer = bytearray(size)
