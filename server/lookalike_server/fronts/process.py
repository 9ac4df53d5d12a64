"""One front-end as the engine sees it: started, told, gone."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import grpc

from lookalike_server.children import ended, spawn
from lookalike_server.errors import ListenFailed
from lookalike_server.fronts.bus import Bus
from lookalike_server.fronts.frames import CANCEL, FAILED, PULSE, READY, START, STOP, Start, Status
from lookalike_server.fronts.line import WINDOW, Line
from lookalike_server.fronts.pulse import Pulse
from lookalike_server.fronts.setup import Setup

_log = logging.getLogger(__name__)

# For loading gRPC on a machine that is busy with models.
_START_SECONDS = 60.0

Answer = Callable[[Start, Line], Coroutine[Any, Any, Status]]


class FrontEnd:
    """A process and its calls; of one event loop. Once it takes calls and then answers nothing it is killed.

    Args:
        answer: answers a call.

    Attributes:
        calls: that are being answered.
        gone: set once the process has ended and its calls are cancelled.
    """

    def __init__(self, answer: Answer) -> None:
        self.calls: dict[int, tuple[Line, asyncio.Task[None]]] = {}
        self.gone = asyncio.Event()
        self._answer = answer
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pulse = Pulse(lambda: self._bus.send(PULSE, 0))
        self._watching: asyncio.Task[None] | None = None

    async def spawn(self, setup: Setup) -> None:
        """Raises ListenFailed when the system has no process for it."""
        ours, its = socket.socketpair()
        with its:
            try:
                self._process = spawn("lookalike_server.fronts", [its.fileno()], setup.encode())
            except OSError as error:
                ours.close()
                raise ListenFailed(f"A front-end cannot be started: {error.strerror}.") from None
        self._bus = await Bus.connect(ours, self._hear, self._lost)

    async def ready(self) -> None:
        """Returns once it takes calls. Raises ListenFailed when it cannot; then it is gone."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._ready
        except TimeoutError:
            self.kill()
            raise ListenFailed(f"A front-end did not start within {_START_SECONDS:.0f} seconds.") from None
        except ListenFailed:
            await self.gone.wait()
            raise

    def stop(self, grace: float | None) -> None:
        """Tells it to let its calls end, for so long; None: at once."""
        self._bus.send(STOP, 0, b"" if grace is None else str(grace).encode())

    def kill(self) -> None:
        self._process.kill()

    def __str__(self) -> str:
        return f"process {self._process.pid}"

    def _hear(self, kind: int, call: int, payload: bytes) -> None:
        self._pulse.heard()
        if kind == START:
            self._begin(call, Start.decode(payload))
        elif call in self.calls:
            line, task = self.calls[call]
            if kind == CANCEL:
                del self.calls[call]
                task.cancel()
            else:
                line.hear(kind, payload)
        elif kind == READY:
            self._ready.set_result(None)
            self._watching = asyncio.create_task(self._watch())
        elif kind == FAILED:
            self._ready.set_exception(ListenFailed(payload.decode()))

    async def _watch(self) -> None:
        await self._pulse.stopped()
        _log.error("A front-end (%s) answers nothing any more and is killed.", self)
        self.kill()

    def _begin(self, number: int, start: Start) -> None:
        line = Line(self._bus, number, WINDOW)
        task = asyncio.create_task(self._run(start, line))
        self.calls[number] = line, task

    async def _run(self, start: Start, line: Line) -> None:
        status = Status(grpc.StatusCode.CANCELLED.value[0], "The server has cancelled the call.")
        try:
            status = await self._answer(start, line)
        finally:
            if self.calls.pop(line.call, None):  # the caller has not left
                line.end(status.encode())

    def _lost(self) -> None:
        for _, task in self.calls.values():
            task.cancel()
        self.calls.clear()
        if self._watching:
            self._watching.cancel()
        if not self._ready.done():
            self._ready.set_exception(ListenFailed("A front-end ended before it took calls."))
        self._reaping = asyncio.create_task(self._reap())

    async def _reap(self) -> None:
        await asyncio.to_thread(ended, self._process)
        self.gone.set()
