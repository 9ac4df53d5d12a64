"""All front-ends, as one server of gRPC: services are added to it, it is started and stopped like one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

from lookalike_server.errors import ListenFailed
from lookalike_server.fronts.answering import Handler, answer
from lookalike_server.fronts.frames import Start, Status
from lookalike_server.fronts.line import Line
from lookalike_server.fronts.process import FrontEnd
from lookalike_server.fronts.setup import Setup
from lookalike_server.listening import reserve

if TYPE_CHECKING:
    from lookalike_server.config import Settings

_log = logging.getLogger(__name__)

# Before a front-end that could not be started again is tried once more.
_PAUSE_SECONDS = 1.0
# What front-ends get beyond the grace to send their last words.
_PARTING_SECONDS = 3.0


class FrontEnds(grpc.aio.Server):
    """Takes calls in so many processes as the settings say, and answers them in this one.

    A front-end that dies is started again; its calls end, those of the others do not.

    Args:
        interceptor: stands around every call.

    Attributes:
        address: with the port that was taken.
        restarts: of front-ends that had died.
        lost: set once there is no front-end, nor can one be started.

    Raises ListenFailed.
    """

    def __init__(self, settings: Settings, interceptor: grpc.aio.ServerInterceptor) -> None:
        self._holder, self.address = reserve(settings.address)
        self.restarts = 0
        self.lost = asyncio.Event()
        self._settings = settings
        self._interceptor = interceptor
        self._methods: dict[str, Handler] = {}
        self._fronts: set[FrontEnd] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = asyncio.Event()

    def running(self) -> int:
        """How many there are at the moment."""
        return len(self._fronts)

    # What grpc.aio.Server asks for.

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        self._methods |= {f"/{service_name}/{name}": handler for name, handler in method_handlers.items()}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Generated code adds each service both ways; it is found by its methods' names."""

    def add_insecure_port(self, address: str) -> int:
        raise NotImplementedError("Front-ends take the address of their settings.")

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        raise NotImplementedError("Front-ends take the address of their settings.")

    async def start(self) -> None:
        """Returns once all of them take calls. Raises ListenFailed when one cannot."""
        beginning = [asyncio.create_task(self._begin()) for _ in range(self._settings.front_ends)]
        self._tasks.update(beginning)
        fronts = await asyncio.gather(*beginning)
        self._tasks = {asyncio.create_task(self._keep(front)) for front in fronts}

    async def stop(self, grace: float | None) -> None:
        """Lets calls end for so many seconds, then ends the front-ends; None: at once."""
        self._stopping.set()
        self._holder.close()
        for front in self._fronts:
            front.stop(grace)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=(grace or 0) + _PARTING_SECONDS)
        for front in tuple(self._fronts):
            front.kill()
            await front.gone.wait()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        raise NotImplementedError("A server that ends calls stop.")

    # Front-ends that come and go.

    async def _begin(self) -> FrontEnd:
        front = FrontEnd(self._answer)
        await front.spawn(Setup.of(self._settings, self.address, self._unary()))
        self._fronts.add(front)
        if self._stopping.is_set():
            front.stop(None)
        try:
            await front.ready()
        except ListenFailed:
            self._fronts.discard(front)
            raise
        return front

    def _unary(self) -> list[str]:
        streaming = ("request_streaming", "response_streaming")
        return [
            name
            for name, handler in self._methods.items()
            if not any(getattr(handler, way) for way in streaming)
        ]

    async def _keep(self, front: FrontEnd) -> None:
        """Stays with a front-end, and with those that take its place, until the server stops."""
        while True:
            await front.gone.wait()
            self._fronts.discard(front)
            if self._stopping.is_set():
                return
            self.restarts += 1
            _log.warning("A front-end (%s) has died; another takes its place.", front)
            replacement = await self._another()
            if replacement is None:
                return
            front = replacement

    async def _another(self) -> FrontEnd | None:
        while not self._stopping.is_set():
            try:
                return await self._begin()
            except ListenFailed as error:
                _log.error("A front-end cannot be started again: %s", error.message)
            if not self._fronts:
                self.lost.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _PAUSE_SECONDS)
        return None

    # Calls.

    async def _answer(self, start: Start, line: Line) -> Status:
        if sum(len(front.calls) for front in self._fronts) > self._settings.max_calls:
            return Status(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "Concurrent RPC limit exceeded!")
        return await answer(start, line, self._find)

    async def _find(self, details: grpc.HandlerCallDetails) -> Handler:
        return await self._interceptor.intercept_service(self._method, details)

    async def _method(self, details: grpc.HandlerCallDetails) -> Handler:
        return self._methods.get(details.method)
