"""A front-end's end of the calls: what gRPC hears goes to the engine as bytes, and its answers come back."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import count
from typing import Any

import grpc

from lookalike_server.fronts.bus import Bus
from lookalike_server.fronts.frames import CANCEL, CREDIT, START, Start, Status
from lookalike_server.fronts.line import Line, weight

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Front(grpc.GenericRpcHandler):
    """Hands every call on, whatever its method.

    Args:
        eager: so many calls send their first message without being asked; that of others is read once the
            engine wants it.
    """

    def __init__(self, eager: int) -> None:
        self.bus: Bus  # set before the first call
        self._eager = eager
        self._calls: dict[int, _Call] = {}
        self._numbers = count(1)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.stream_stream_rpc_method_handler(partial(self._relay, handler_call_details.method))

    def hear(self, kind: int, call: int, payload: bytes) -> None:
        """Takes a frame of a call. Those of one that has ended here are late, and nobody's."""
        if call in self._calls:
            self._calls[call].hear(kind, payload)

    async def _relay(self, method: str, _: Any, context: Any) -> None:
        sends = len(self._calls) < self._eager
        call = _Call(Line(self.bus, next(self._numbers), 0), context)
        start = Start(
            method, context.peer(), context.time_remaining(), sends, context.invocation_metadata() or ()
        )
        number = call.line.call
        self._calls[number] = call
        self.bus.send(START, number, start.encode())
        try:
            status = await call.run(sends)
        except grpc.aio.InternalError:  # so fails what is being sent when the caller leaves
            raise asyncio.CancelledError from None
        finally:
            del self._calls[number]
            if call.line.ending is None:
                self.bus.send(CANCEL, number)
        if status.code:
            await context.abort(_CODES[status.code], status.message, status.trailers)


class _Call:
    def __init__(self, line: Line, context: Any) -> None:
        self.line = line
        self._context = context
        self._reading: asyncio.Task[None] | None = None

    def hear(self, kind: int, payload: bytes) -> None:
        self.line.hear(kind, payload)
        if kind == CREDIT and self._reading is None:
            self._reading = asyncio.create_task(self._read())

    async def run(self, sends: bool) -> Status:
        """Carries messages both ways until the engine has ended the call."""
        try:
            if sends:
                await self._read_one()
            while (message := await self.line.receive()) is not None:
                await self._context.write(message)
                self.line.grant(weight(message))
        finally:
            if self._reading is not None:
                self._reading.cancel()
        return Status.decode(self.line.ending or b"")

    async def _read(self) -> None:
        while True:
            await self.line.credit()
            if not await self._read_one():
                return

    async def _read_one(self) -> bool:
        message = await self._context.read()
        if message is grpc.aio.EOF:
            self.line.end()
            return False
        await self.line.send(message)
        return True
