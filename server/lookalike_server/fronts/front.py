"""A front-end's end of the calls: what gRPC hears goes to the engine as bytes, and its answers come back."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import grpc

from lookalike_server.fronts.bus import Bus
from lookalike_server.fronts.frames import CANCEL, START, Start, Status
from lookalike_server.fronts.line import Line, weight

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Front(grpc.GenericRpcHandler):
    """Hands every call on, whatever its method.

    Args:
        eager: calls send their first message without being asked. If not, it is read when the engine asks.
        unary: methods of one message each way, which cost gRPC less when it is told. All others are taken for
            streams, as any method can be.
    """

    def __init__(self, eager: bool, unary: Collection[str]) -> None:
        self.bus: Bus  # set before the first call
        self._eager, self._unary = eager, frozenset(unary if eager else ())
        self._lines: dict[int, Line] = {}
        self._numbers = count(1)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        if method in self._unary:
            return grpc.unary_unary_rpc_method_handler(partial(self._carry_one, method))
        return grpc.stream_stream_rpc_method_handler(partial(self._carry, method))

    def hear(self, kind: int, call: int, payload: bytes) -> None:
        """Takes a frame of a call. Those of one that has ended here are late, and nobody's."""
        if call in self._lines:
            self._lines[call].hear(kind, payload)

    async def _carry_one(self, method: str, message: bytes, context: Any) -> bytes | None:
        with self._line(method, context) as line:
            await line.send(message)
            answer = await line.receive()
            await line.receive()  # None, with the status
        await _conclude(line, context)
        return answer

    async def _carry(self, method: str, _: Any, context: Any) -> None:
        with self._line(method, context) as line:
            reading = asyncio.create_task(_read(line, context, self._eager))
            try:
                while (message := await line.receive()) is not None:
                    await context.write(message)
                    line.grant(weight(message))
            finally:
                reading.cancel()
        await _conclude(line, context)

    @contextmanager
    def _line(self, method: str, context: Any) -> Iterator[Line]:
        """Begins a call. When it is left before the engine has ended the call, the caller has left."""
        line = Line(self.bus, next(self._numbers), 0)
        self._lines[line.call] = line
        metadata = context.invocation_metadata() or ()
        start = Start(method, context.peer(), context.time_remaining(), self._eager, metadata)
        self.bus.send(START, line.call, start.encode())
        try:
            yield line
        except grpc.aio.InternalError:  # so fails what is being sent when the caller leaves
            raise asyncio.CancelledError from None
        finally:
            del self._lines[line.call]
            if line.ending is None:
                self.bus.send(CANCEL, line.call)


async def _conclude(line: Line, context: Any) -> None:
    status = Status.decode(line.ending or b"")
    if status.code:
        await context.abort(_CODES[status.code], status.message, status.trailers)


async def _read(line: Line, context: Any, eager: bool) -> None:
    """Sends on what the caller sends, each message once there is credit for it."""
    if not eager:
        await line.credit()
    while (message := await context.read()) is not grpc.aio.EOF:
        await line.send(message)
        await line.credit()
    line.end()
