"""Services made by hand on a port of their own, served from a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from lookalike.v1 import models_pb2, models_pb2_grpc
from lookalike_server.interceptors import CallInterceptor
from lookalike_server.listening import listen
from looping import Ready, looping


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

    async def main(ready: Ready[str]) -> None:
        server, address = listen("127.0.0.1:0", [calls], 1 << 20, tls())
        models_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
        if add:
            await add(server)
        await server.start()
        stop = asyncio.Event()
        ready(address, stop.set)
        await stop.wait()
        await server.stop(None)

    with looping(main) as address:
        yield address
