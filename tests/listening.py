"""Services made by hand on a port of their own, served from a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from lookalike.v1 import models_pb2, models_pb2_grpc
from lookalike_server.assembly import listen
from lookalike_server.interceptors import CallInterceptor


class Models(models_pb2_grpc.ModelServiceServicer):
    async def GetServerInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        return models_pb2.GetServerInfoResponse(version="1")


@contextmanager
def listening(
    calls: CallInterceptor,
    add: Callable[[grpc.aio.Server], Awaitable[None]] | None = None,
    tls: Callable[[], grpc.ServerCredentials | None] = lambda: None,
) -> Iterator[str]:
    """A server that tells its version, and what is added to it. `tls` is called in the server's loop."""
    started, stop, addresses = threading.Event(), [], []

    async def main() -> None:
        server, address = listen("127.0.0.1:0", calls, 1 << 20, tls())
        models_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
        if add:
            await add(server)
        await server.start()
        addresses.append(address)
        ended = asyncio.Event()
        stop.append((asyncio.get_running_loop(), ended))
        started.set()
        await ended.wait()
        await server.stop(None)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert started.wait(20)
    try:
        yield addresses[0]
    finally:
        loop, ended = stop[0]
        loop.call_soon_threadsafe(ended.set)
        thread.join(20)
