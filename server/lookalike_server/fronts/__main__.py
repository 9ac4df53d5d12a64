"""The process of a front-end: `python -m lookalike_server.fronts DESCRIPTOR SETUP`, as process.py starts it.

It lives as long as its engine does: it hears no signals (they are blocked when it is started), stops when the
engine says so, and ends at once when the engine is gone. It needs gRPC, and neither models nor indexes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from lookalike_extractor.errors import LookalikeError

from lookalike_server import logs
from lookalike_server.fronts.bus import Bus
from lookalike_server.fronts.frames import FAILED, HEAD, PULSE, READY, STOP
from lookalike_server.fronts.front import Front
from lookalike_server.fronts.setup import Setup


async def serve(end: socket.socket, setup: Setup) -> None:
    """Serves until the engine says stop."""
    try:
        server = setup.listen()
    except LookalikeError as error:
        why = error.message.encode()
        end.sendall(HEAD.pack(FAILED, 0, len(why)) + why)
        return
    front, ended = Front(setup.eager, setup.unary), asyncio.Event()
    stops: set[asyncio.Task[None]] = set()

    async def stop(grace: float | None) -> None:
        await server.stop(grace)
        ended.set()

    def hear(kind: int, call: int, payload: bytes) -> None:
        if kind == STOP:
            stops.add(asyncio.create_task(stop(float(payload) if payload else None)))
        elif kind == PULSE:
            front.bus.send(PULSE, 0)
        else:
            front.hear(kind, call, payload)

    front.bus = await Bus.connect(end, hear, lambda: os._exit(1))
    server.add_generic_rpc_handlers([front])
    await server.start()
    front.bus.send(READY, 0)
    await ended.wait()


def main() -> None:
    descriptor, text = sys.argv[1:]
    setup = Setup.decode(text)
    logs.configure(setup.log_format, setup.log_level)
    asyncio.run(serve(socket.socket(fileno=int(descriptor)), setup))


if __name__ == "__main__":
    main()
