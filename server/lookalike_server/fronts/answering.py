"""The engine's end of a call: the methods of the services, called as grpc.aio would call them."""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc

from lookalike_server.fronts.frames import Metadata, Start, Status
from lookalike_server.fronts.line import WINDOW, Line, weight

Handler = Any  # grpc.RpcMethodHandler; its type stub leaves the fields out

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Details(grpc.HandlerCallDetails):
    """What an interceptor is told of a call before it begins."""

    method: str
    invocation_metadata: Metadata


class Context:
    """What our interceptors and services ask of a grpc.aio.ServicerContext."""

    def __init__(self, start: Start, line: Line) -> None:
        self.ending = Status()
        self.serialize: Callable[[Any], bytes] = _as_it_is
        self._start, self._line = start, line
        self._deadline = math.inf if start.left is None else time.monotonic() + start.left

    def invocation_metadata(self) -> Metadata:
        return self._start.metadata

    def peer(self) -> str:
        return self._start.peer

    def time_remaining(self) -> float | None:
        return None if self._deadline == math.inf else max(0.0, self._deadline - time.monotonic())

    async def write(self, message: Any) -> None:
        data = self.serialize(message)
        await self._line.credit()
        await self._line.send(data)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        self.ending = Status(code.value[0], details, trailing_metadata)
        raise grpc.aio.AbortError


async def answer(
    start: Start, line: Line, find: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
) -> Status:
    """Answers a call, and returns how it has ended. Cancel it when its caller has left.

    Args:
        find: returns the handler, with what interceptors put around it; None: there is none.
    """
    context = Context(start, line)
    try:
        handler = await find(Details(start.method, start.metadata))
        if handler is None:
            return _failed(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        return await _call(handler, context, start, line)
    except grpc.aio.AbortError:
        return context.ending
    except Exception as error:
        _log.exception("%s failed", start.method)
        return _failed(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")


async def _call(handler: Handler, context: Context, start: Start, line: Line) -> Status:
    context.serialize = handler.response_serializer or _as_it_is
    read = handler.request_deserializer or _as_it_is
    if handler.request_streaming:
        request: Any = _requests(start, line, read)
    else:
        if not start.sends:
            line.grant(1)
        data = await line.receive()
        if data is None:
            return _failed(grpc.StatusCode.INTERNAL, "The call ended without its message.")
        request = read(data)
    takes = "stream" if handler.request_streaming else "unary"
    gives = "stream" if handler.response_streaming else "unary"
    answers = getattr(handler, f"{takes}_{gives}")(request, context)
    if not handler.response_streaming:
        await line.send(context.serialize(await answers))
    elif inspect.isasyncgen(answers):
        async with aclosing(answers):
            async for one in answers:
                await context.write(one)
    else:
        await answers  # it writes to the context itself
    return context.ending


async def _requests(start: Start, line: Line, read: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    """The messages of a stream. The first one that came unasked opens the window, or else this does."""
    opening = WINDOW
    if not start.sends:
        line.grant(opening)
        opening = 0
    while (data := await line.receive()) is not None:
        line.grant(opening + weight(data))
        opening = 0
        yield read(data)


def _failed(code: grpc.StatusCode, message: str) -> Status:
    return Status(code.value[0], message)


def _as_it_is(data: Any) -> Any:
    return data
