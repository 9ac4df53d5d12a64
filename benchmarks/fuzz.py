"""Broken images, and messages that are none: no crash, no hang, no wrong neighbour, nothing left behind.

    python benchmarks/fuzz.py --images 100000
    python benchmarks/fuzz.py --images 0 --messages 100000

Images are photos in all formats with bytes changed, cut, repeated and moved, sent through the engine in
eights beside a good one whose descriptor must stay the same bit for bit; each must get a descriptor, or a
status that blames the image. Messages are changed requests to every call of a whole server; each must end in
time, and none as our fault. What first does otherwise is written to a file and ends the run. A seed gives the
same run again. About 1,000 images and 150 messages a second on one core.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from lookalike.v1 import collections_pb2
from lookalike_server.assembly import SERVICES

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from engines import running  # found by the lines before
from photos import encode, photo
from spoiled import filled, mutated, seeds

TOGETHER = 8
HANGS_AFTER = 20.0
WATCHED_FOR = 0.3
AGAIN = 20
OUR_FAULT = (
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)


async def images(count: int, rng: random.Random) -> Counter[str]:
    """Sends changed images; returns how many ended how."""
    good, reasons = encode(photo("chelsea").resize((120, 80))), Counter[str]()
    async with running() as engine:
        (expected,) = await engine.embed([good], [])
        for _ in range(0, count, TOGETHER):
            bad = [mutated(rng.choice(seeds()), rng) for _ in range(TOGETHER)]
            place = rng.randrange(TOGETHER + 1)
            sent = [*bad[:place], good, *bad[place:]]
            outcomes = await asyncio.wait_for(engine.embed(sent, []), HANGS_AFTER)
            neighbour = outcomes.pop(place)
            if not np.array_equal(neighbour.descriptors["tiny"], expected.descriptors["tiny"]):
                failed("a neighbour changed", b"".join(bad))
            for image, outcome in zip(bad, outcomes, strict=True):
                reasons[outcome.error.reason if outcome.error else "read all the same"] += 1
                if outcome.error is not None and outcome.error.status != "INVALID_ARGUMENT":
                    failed(f"{outcome.error.reason}: {outcome.error}", image)
        left = engine.statistics()
        if left.images or left.bytes or left.restarts:
            failed(f"left behind: {left}", b"")
    return reasons


@cache
def calls() -> list[tuple[str, Any, bool]]:
    """Every call: its path, its request's class, whether it takes a stream."""
    pool = descriptor_pool.Default()
    return [
        (f"/{service}/{method.name}", GetMessageClass(method.input_type), method.client_streaming)
        for service in SERVICES
        for method in pool.FindServiceByName(service).methods
    ]


def messages(channel: grpc.Channel, count: int, rng: random.Random) -> Counter[str]:
    """Sends changed requests to a server; returns how many ended how."""
    codes = Counter[str]()
    for number in range(count):
        if not number % AGAIN:
            _called(channel, *_creation())
        path, kind, streaming = rng.choice(calls())
        data = filled(kind, rng).SerializeToString()
        data = mutated(data, rng) if rng.random() < 0.5 else data
        code, details = _called(channel, path, data, streaming)
        codes[code.name] += 1
        watched = "/Watch" in path and code is grpc.StatusCode.DEADLINE_EXCEEDED
        if code in OUR_FAULT and not watched:
            failed(f"{path}: {code.name}: {details}", data)
    return codes


def _creation() -> tuple[str, bytes, bool]:
    """A call that makes the collection which many messages are about; some of them delete it."""
    request = collections_pb2.CreateCollectionRequest(name="fuzz")
    return "/lookalike.v1.CollectionService/CreateCollection", request.SerializeToString(), False


def _called(channel: grpc.Channel, path: str, data: bytes, streaming: bool) -> tuple[grpc.StatusCode, str]:
    # Answers are read as a stream whether or not they are one; a watcher's has no end but the deadline.
    seconds = WATCHED_FOR if "/Watch" in path else HANGS_AFTER
    call = (
        channel.stream_stream(path)(iter([data]), timeout=seconds)
        if streaming
        else channel.unary_stream(path)(data, timeout=seconds)
    )
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        pass
    return call.code(), call.details()


def failed(fault: str, data: bytes) -> None:
    path = Path(tempfile.gettempdir()) / "fuzz-failed.bin"
    path.write_bytes(data)
    sys.exit(f"{fault}\nwhat was sent is in {path}")


def parts(count: int, size: int = 20_000) -> Iterator[int]:
    """Numbers that sum up to `count`, so that long runs tell how far they are."""
    while count > 0:
        yield min(count, size)
        count -= size


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--messages", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, begun = random.Random(options.seed), time.monotonic()
    for count in parts(options.images):
        ended = asyncio.run(images(count, rng))
        print(f"{time.monotonic() - begun:5.0f} s: images {dict(ended.most_common())}", flush=True)
    if not options.messages:
        return

    from lookalike_server.app import EmbeddedServer
    from lookalike_server.config import Settings

    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedServer(Settings(data=Path(folder))) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        for count in parts(options.messages):
            codes = messages(channel, count, rng)
            print(f"{time.monotonic() - begun:5.0f} s: messages {dict(codes.most_common())}", flush=True)


if __name__ == "__main__":
    main()
