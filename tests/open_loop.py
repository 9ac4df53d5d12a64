"""Callers in a process of their own: one at each tick, whatever became of those before.

    python tests/open_loop.py TARGET CALLS_A_SECOND SECONDS

Prints how many calls a second were answered, and the seconds after which each other one was refused.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import grpc
from lookalike.v1 import embedding_pb2, embedding_pb2_grpc, types_pb2

PIXELS = types_pb2.Tensor(dtype=types_pb2.DATA_TYPE_UINT8, shape=[16, 16, 3], data=bytes(16 * 16 * 3))
REQUEST = embedding_pb2.EmbedRequest(images=[types_pb2.Image(pixels=PIXELS)])


async def main(target: str, rate: float, seconds: float) -> None:
    answered, refusals, calls = 0, [], []
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)

        async def call() -> None:
            nonlocal answered
            started = time.monotonic()
            try:
                await stub.Embed(REQUEST, timeout=10)
                answered += 1
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                refusals.append(time.monotonic() - started)

        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            calls += [asyncio.create_task(call()) for _ in range(int(now * rate) - len(calls))]
            await asyncio.sleep(0.005)
        await asyncio.gather(*calls)
        rate_of_answers = answered / (time.monotonic() - began)
    print(json.dumps({"rate": rate_of_answers, "sent": len(calls), "refusals": refusals}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
