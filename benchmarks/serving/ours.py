"""Lookalike's server around the shared model. It says on standard output when it is there.

To each line on standard input it answers with its gauges; it ends when that is closed.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import sys
from functools import partial
from typing import Any

import grpc
from lookalike.v1 import embedding_pb2_grpc
from lookalike_server.apart.device import ApartDevice
from lookalike_server.apart.orders import Order
from lookalike_server.config import Settings
from lookalike_server.device import Threads, threads
from lookalike_server.engine import Engine
from lookalike_server.gpu_decoding import gpu_decoder
from lookalike_server.interceptors import CallInterceptor
from lookalike_server.services.embedding import EmbeddingServicer
from shared import MAX_BATCH, Work, device_of, recipe_of


class _Mallinfo(ctypes.Structure):
    """What glibc's mallinfo2 returns: ten numbers (malloc.h), of which two matter here."""

    _fields_ = (
        ("_before", ctypes.c_size_t * 4),
        ("mapped", ctypes.c_size_t),
        ("_between", ctypes.c_size_t * 2),
        ("in_use", ctypes.c_size_t),
        ("_after", ctypes.c_size_t * 2),
    )


def allocated() -> int:
    """Bytes that malloc has given out, without Python's small objects; 0 where it is not glibc's."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return 0
    mallinfo.restype = _Mallinfo
    now = mallinfo()
    return int(now.in_use + now.mapped)


def _device(model: str) -> Any:
    """As `lookalike serve` has it: a model on the CPU in a process of its own."""
    where, runtime = os.environ.get("MODEL_DEVICE", "cpu"), os.environ.get("MODEL_RUNTIME", "eager")
    if where != "cpu":
        return Work(model).device
    load, count = partial(device_of, model), int(os.environ.get("MODEL_THREADS", "2"))
    return ApartDevice(Order(where, load, [runtime], MAX_BATCH, count))


async def main(model: str, target: str) -> None:
    recipe, device = recipe_of(model), _device(model)
    decoders: Threads = threads(device.name)
    gpu = gpu_decoder(device.name) if os.environ.get("MODEL_GPU_DECODE") else None
    engine = Engine(
        {recipe.name: recipe},
        device,
        max_batch=MAX_BATCH,
        decode_threads=decoders.decode,
        gpu_decoder=gpu,
    )
    await engine.start()
    await engine.try_out()
    if gpu and not engine.decodes_on:
        raise SystemExit("The GPU's decoder does not agree with the CPU's; the line above tells more.")
    size = ("grpc.max_receive_message_length", 64 << 20)
    server = grpc.aio.server(interceptors=[CallInterceptor()], options=[size])
    embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(EmbeddingServicer(engine, Settings()), server)
    server.add_insecure_port(target)
    await server.start()
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        gc.collect()
        now = engine.statistics()
        gauges = {"images": now.images, "bytes": now.bytes, "waiting": sum(now.waiting.values())}
        gauges |= {"allocated": allocated(), "blocks": sys.getallocatedblocks()}
        print(json.dumps(gauges | {"done": now.done, "refused": now.refused}), flush=True)
    await server.stop(None)
    await engine.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
