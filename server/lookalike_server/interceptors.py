"""The one place where a call is let in, where its error becomes a status, and where calls are counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from lookalike_extractor.errors import LookalikeError

from lookalike_server.caller import CALLER, caller_of
from lookalike_server.calls import CallObserver, CallRecord, begin
from lookalike_server.errors import ArgumentInvalid
from lookalike_server.wire import status_of

if TYPE_CHECKING:
    from lookalike_server.quotas import Quota
    from lookalike_server.tokens import Gate

Handler = Any  # grpc.RpcMethodHandler; its type stub leaves the fields out

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Stands around every call to a service of ours.

    An error of a servicer method becomes its rich status; so does a message that cannot be parsed.
    Cancellation passes through untouched: nobody is there to answer. `wait_idle` returns once no call is in
    flight.

    Args:
        gate: asks for tokens; None lets everybody in.
        observers: are told of each call, those that were not let in as well.
    """

    def __init__(self, gate: Gate | None = None, observers: Sequence[CallObserver] = ()) -> None:
        self.calls = 0
        self._gate = gate
        self._observers = observers
        self._idle = asyncio.Event()
        self._idle.set()

    async def wait_idle(self) -> None:
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        method: str = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith("/lookalike.v1."):
            return handler
        name, quota = "", None
        if self._gate is not None:
            try:
                name, quota = self._gate.admit(method, handler_call_details.invocation_metadata)
            except LookalikeError as error:
                return self._refusal(method, error)
        return self._guarded(handler, method, name, quota)

    def _refusal(self, method: str, error: LookalikeError) -> Handler:
        """Answers without reading the request: a stranger's megabytes are not taken in."""

        async def refuse(requests: Any, context: Any) -> AsyncIterator[Any]:
            async with self._call(context, method, "", None):
                raise error
            yield

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _guarded(self, handler: Handler, method: str, name: str, quota: Quota | None) -> Handler:
        def around(context: Any) -> Any:
            return self._call(context, method, name, quota)

        takes = "stream" if handler.request_streaming else "unary"
        gives = "stream" if handler.response_streaming else "unary"
        checked = _checked_stream if handler.request_streaming else _checked
        make = _stream if handler.response_streaming else _unary
        wrap = getattr(grpc, f"{takes}_{gives}_rpc_method_handler")
        guarded = make(getattr(handler, f"{takes}_{gives}"), checked, around)
        return wrap(guarded, _reading(handler.request_deserializer), handler.response_serializer)

    @asynccontextmanager
    async def _call(self, context: Any, method: str, name: str, quota: Quota | None) -> AsyncIterator[None]:
        metadata = context.invocation_metadata() or ()
        record = begin(method, context.peer(), metadata)
        record.token = name
        caller = caller_of(context)
        CALLER.set(replace(caller, name=name or caller.name, quota=quota, record=record))
        self.calls += 1
        self._idle.clear()
        with ExitStack() as stack:
            for observer in self._observers:
                stack.enter_context(observer.around(record, dict(metadata)))
            try:
                yield
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await _abort(context, error, record)
            except BaseException:  # cancelled, or a generator that is closed
                record.code = grpc.StatusCode.CANCELLED.name
                raise
            finally:
                record.seconds = time.monotonic() - record.started
                self.calls -= 1
                if not self.calls:
                    self._idle.set()


def _unary(method: Any, checked: Callable[[Any], Any], around: Callable[[Any], Any]) -> Any:
    async def guarded(request: Any, context: Any) -> Any:
        async with around(context):
            return await method(checked(request), context)

    return guarded


def _stream(method: Any, checked: Callable[[Any], Any], around: Callable[[Any], Any]) -> Any:
    async def guarded(request: Any, context: Any) -> None:
        async with around(context), aclosing(method(checked(request), context)) as responses:
            async for response in responses:
                await _write(response, context)

    return guarded


async def _write(response: Any, context: Any) -> None:
    """Sends a message of a stream. If gRPC did it, it would log each caller who leaves meanwhile as an error.

    It would also leave the stream, and what is in flight for it, to the collector of garbage.
    """
    try:
        await context.write(response)
    except grpc.aio.BaseError:  # nothing can be sent any more
        raise asyncio.CancelledError from None


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


async def _abort(context: Any, error: Exception, record: CallRecord) -> None:
    status = status_of(error)
    record.code = _CODES[status.code].name
    record.reason = error.reason if isinstance(error, LookalikeError) else "INTERNAL"
    trailers = [("grpc-status-details-bin", status.SerializeToString())]
    if isinstance(error, LookalikeError) and (patience := error.metadata.get("retry_after_ms")):
        # What RetryInfo says to people, gRPC's own retry policy reads here.
        trailers.append(("grpc-retry-pushback-ms", patience))
    await context.abort(_CODES[status.code], status.message, tuple(trailers))
