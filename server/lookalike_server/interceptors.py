"""The one place where an error becomes the status of a call, and where calls in flight are counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from lookalike_extractor.errors import LookalikeError

from lookalike_server.errors import ArgumentInvalid
from lookalike_server.wire import status_of

Handler = Any  # grpc.RpcMethodHandler; its type stub leaves the fields out

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Stands around every call to a service of ours.

    An error of a servicer method becomes its rich status; so does a message that cannot be parsed.
    Cancellation passes through untouched: nobody is there to answer. `wait_idle` returns once no call is in
    flight.
    """

    def __init__(self) -> None:
        self.calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def wait_idle(self) -> None:
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/lookalike.v1."):
            return handler
        return self._guarded(handler)

    def _guarded(self, handler: Handler) -> Handler:
        checked = _checked_stream if handler.request_streaming else _checked
        if handler.request_streaming and handler.response_streaming:
            wrap, method = grpc.stream_stream_rpc_method_handler, self._stream(handler.stream_stream, checked)
        elif handler.request_streaming:
            wrap, method = grpc.stream_unary_rpc_method_handler, self._unary(handler.stream_unary, checked)
        elif handler.response_streaming:
            wrap, method = grpc.unary_stream_rpc_method_handler, self._stream(handler.unary_stream, checked)
        else:
            wrap, method = grpc.unary_unary_rpc_method_handler, self._unary(handler.unary_unary, checked)
        return wrap(method, _reading(handler.request_deserializer), handler.response_serializer)

    def _unary(self, method: Any, checked: Callable[[Any], Any]) -> Any:
        async def guarded(request: Any, context: Any) -> Any:
            async with self._call(context):
                return await method(checked(request), context)

        return guarded

    def _stream(self, method: Any, checked: Callable[[Any], Any]) -> Any:
        async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
            async with self._call(context), aclosing(method(checked(request), context)) as responses:
                async for response in responses:
                    yield response

        return guarded

    @asynccontextmanager
    async def _call(self, context: Any) -> AsyncIterator[None]:
        self.calls += 1
        self._idle.clear()
        try:
            yield
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await _abort(context, error)
        finally:
            self.calls -= 1
            if not self.calls:
                self._idle.set()


def _reading(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Hands a parse error on as a value: raised in the deserializer, gRPC would answer UNKNOWN."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return ArgumentInvalid("The message is not the protobuf that this call takes.", field="")

    return read


def _checked(request: Any) -> Any:
    if isinstance(request, LookalikeError):
        raise request
    return request


async def _checked_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)


async def _abort(context: Any, error: Exception) -> None:
    status = status_of(error)
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(_CODES[status.code], status.message, details)
