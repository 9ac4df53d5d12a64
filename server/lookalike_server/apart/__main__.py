"""The process of models: `python -m lookalike_server.apart SOCKET MEMORY`, as device.py starts it.

It hears no signals (they are blocked when it is started) and ends when its server does, or wants it no more:
at once, even in the midst of a batch.
"""

from __future__ import annotations

import os
import pickle
import select
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from lookalike_server import logs
from lookalike_server.apart.memory import PixelMemory
from lookalike_server.apart.orders import Batch, Loaded, Order, Shown, tellable
from lookalike_server.device import Device, set_threads, tune_allocator


def main() -> None:
    socket, memory = map(int, sys.argv[1:])
    threading.Thread(target=_end_with_server, args=(socket,), daemon=True).start()
    server: Connection[Any, Any] = Connection(socket)
    try:
        order: Order = server.recv()
    except EOFError:  # the server has ended before it knew what it wants
        return
    try:
        device = load(order)
    except Exception as error:
        server.send(tellable(error))
        return
    shown = [Shown(one.spaces, one.preprocessing, one.pads_one) for one in device.models]
    loaded = Loaded(shown, device.runtimes)
    pixels = PixelMemory(memory, loaded.inputs, order.max_batch)
    # By value: `send` would leave a face finder's tensors here, for the server to fetch, which it may not.
    server.send_bytes(pickle.dumps(loaded))
    with suppress(EOFError, OSError):  # the server has closed its end
        while True:
            request = server.recv()
            server.send(answer(device, pixels, request))


def load(order: Order) -> Device:
    logs.configure(order.log_format, order.log_level)
    set_threads(order.threads)
    tune_allocator()
    return order.load(order.wishes)


def answer(device: Device, pixels: PixelMemory, request: object) -> object:
    """Returns what was asked for, or the error that it ended with."""
    try:
        if not isinstance(request, Batch):
            return device.warm_up()
        images = pixels.images(request.images, device.models[request.model].preprocessing)
        return device.run(request.model, list(images))
    except Exception as error:
        return tellable(error)


def _end_with_server(socket: int) -> None:
    """Whatever else goes on: a batch that hangs would keep a process that nobody knows of."""
    ended = select.poll()
    ended.register(socket, 0)  # tells that the other end is gone, and nothing else
    ended.poll()
    os._exit(0)


if __name__ == "__main__":
    main()
