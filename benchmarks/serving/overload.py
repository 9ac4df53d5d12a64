"""Lookalike's server under more than it can bear, and one interactive caller beside streams that fill it.

    python benchmarks/serving/overload.py --model efficientnet_lite0 --seconds 10
    python benchmarks/serving/overload.py --model resnet50 --times 2 10 --seconds 10

First what callers get at the most who wait for each answer (16 of them). Then open loop: calls of one image
leave at so many times that rate, whatever became of those before, with a deadline. A row tells the answers in
time, as a share of the most; from when they were meant to leave until they were answered; how long refusals
took, from when they did leave; the server's memory; and how much of the machine the callers took from the
server, for they run beside it.

At the end one interactive caller, alone and beside streams that keep chunks of 16 in flight.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import asking
import grpc
import numpy as np
from lookalike.v1 import embedding_pb2_grpc
from run import CHUNK, closed_loop
from shared import jpegs
from sides import Side, served

STREAMS = 4


@dataclass
class Ends:
    """Of calls in open loop; seconds."""

    answers: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


async def open_loop(target: str, images: list[bytes], rate: float, seconds: float, deadline: float) -> Ends:
    ends, calls = Ends(), set()
    messages = cycle([asking.request([image]) for image in images])
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)

        async def call(meant: float) -> None:
            left = time.monotonic()
            try:
                await stub.Embed(next(messages), timeout=deadline)
                ends.answers.append(time.monotonic() - meant)
            except grpc.aio.AioRpcError as error:
                # What is refused is told when to come back; a deadline that only passes is not.
                if "grpc-retry-pushback-ms" in dict(error.trailing_metadata() or ()):
                    ends.refusals.append(time.monotonic() - left)
                else:
                    ends.others[error.code().name] += 1

        begun, sent = time.monotonic(), 0
        while (now := time.monotonic() - begun) < seconds:
            for number in range(sent, int(now * rate)):
                task = asyncio.create_task(call(begun + number / rate))
                calls.add(task)
                task.add_done_callback(calls.discard)
            sent = int(now * rate)
            await asyncio.sleep(0.002)
        await asyncio.gather(*calls)
    return ends


def overload(side: Side, images: list[bytes], peak: float, times: float, options: argparse.Namespace) -> None:
    cpu, begun = time.process_time(), time.monotonic()
    ends = asyncio.run(open_loop(side.target, images, times * peak, options.seconds, options.deadline))
    took = (time.process_time() - cpu) / (time.monotonic() - begun) / len(os.sched_getaffinity(0))
    goodput = len(ends.answers) / options.seconds
    print(
        f"{times:4g} times  {goodput:7.1f} images/s in time, {goodput / peak:5.2f} of the most, "
        f"{_percentiles(ends.answers)}  {len(ends.refusals)} refused, {_percentiles(ends.refusals)}  "
        f"otherwise {dict(ends.others) or 'none'}  {side.memory():.0f} MiB  callers took {took:.0%}",
        flush=True,
    )


def _percentiles(seconds: list[float]) -> str:
    if not seconds:
        return "none"
    p50, p99 = np.percentile(seconds, (50, 99)) * 1000
    return f"p50 {p50:.1f} p99 {p99:.1f} ms"


def beside_streams(target: str, images: list[bytes], seconds: float) -> None:
    alone = closed_loop(lambda: asking.unary(target), images, 1, 1, seconds)
    stop, done = threading.Event(), [0] * STREAMS

    def fill(number: int) -> None:
        ask, supply = asking.stream(target), cycle(images)
        while not stop.is_set():
            done[number] += len(ask([next(supply) for _ in range(CHUNK)]))

    streams = [threading.Thread(target=fill, args=(number,)) for number in range(STREAMS)]
    for thread in streams:
        thread.start()
    time.sleep(min(2.0, seconds))
    before = sum(done)
    beside = closed_loop(lambda: asking.unary(target), images, 1, 1, seconds)
    rate = (sum(done) - before) / beside.seconds
    stop.set()
    for thread in streams:
        thread.join()
    print(f"one interactive caller alone: {len(alone.latencies)} calls, {_percentiles(alone.latencies)}")
    print(
        f"beside {STREAMS} streams with {rate:.1f} images/s: {len(beside.latencies)} calls, "
        f"{_percentiles(beside.latencies)}; "
        f"p99 {np.percentile(beside.latencies, 99) / np.percentile(alone.latencies, 99):.2f} times",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="efficientnet_lite0", help="or resnet50, or tiny")
    parser.add_argument("--times", type=float, nargs="*", default=[1, 2, 10])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--deadline", type=float, default=2.0, help="seconds that callers wait")
    options = parser.parse_args()
    images = jpegs()
    with (
        tempfile.TemporaryDirectory() as folder,
        served("unary", options.model, folder, images[0]) as side,
    ):
        load = closed_loop(side.make, images, 16, 1, options.seconds)
        peak = load.answered / load.seconds
        print(f"the most: {peak:.1f} images/s, {_percentiles(load.latencies)}", flush=True)
        for times in options.times:
            overload(side, images, peak, times, options)
        beside_streams(side.target, images, options.seconds)


if __name__ == "__main__":
    main()
