"""A server under mixed load for hours: memory, file descriptors, latency, and gauges that go back to zero.

    python benchmarks/soak.py --minutes 120
    python benchmarks/soak.py --minutes 2 --model tiny
    python benchmarks/soak.py --minutes 0 --cancels 100000 --model tiny
    python benchmarks/soak.py --minutes 1 --idle 2000 --model tiny

The load: four interactive callers, a stream, callers who leave at any moment, callers with deadlines of
milliseconds, and one image in fifty that is none. Each row is one part of the time: resident memory, what
malloc has given out of it, and Python's objects. Resident memory stays where the largest load so far has
taken it, because nothing is given back to the system (device.tune_allocator); a leak shows in the other two.
The end tells the slopes over the second half, and what is left on the road when all have gone; it fails when
something is.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from lookalike.v1 import embedding_pb2 as pb
from lookalike.v1 import embedding_pb2_grpc, types_pb2

SERVING = Path(__file__).parent / "serving"
sys.path.insert(0, str(SERVING))

from shared import jpegs  # noqa: E402  # found by the line before

PARTS = 10
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)  # preface and empty settings
LEFT = (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)


class Server:
    """The process of ours.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._line()

    def gauges(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def memory(self) -> float:
        """Resident, in MiB."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def served(model: str, target: str) -> Iterator[Server]:
    command = [sys.executable, "ours.py", model, target]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=SERVING
    ) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


class Load:
    """Callers in threads, until `stop`."""

    def __init__(self, target: str) -> None:
        self.stop = threading.Event()
        self.latencies: list[float] = []
        self.faults: list[str] = []
        self.cancelled = 0
        self._target, self._images = target, [*jpegs(49), b"no image"]
        callers = [self._interactive] * 4 + [self._stream, self._leaving, self._hurried]
        self._threads = [threading.Thread(target=self._guarded, args=(caller,)) for caller in callers]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def _guarded(self, caller: Callable[[Any, random.Random], None]) -> None:
        rng = random.Random(threading.get_ident())
        with grpc.insecure_channel(self._target) as channel:
            stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
            while not self.stop.is_set():
                try:
                    caller(stub, rng)
                except grpc.RpcError as error:
                    if error.code() not in LEFT:
                        self.faults.append(f"{error.code()}: {error.details()}")

    def _interactive(self, stub: Any, rng: random.Random) -> None:
        started = time.monotonic()
        stub.Embed(self._request(rng, 1), timeout=30)
        self.latencies.append(time.monotonic() - started)

    def _stream(self, stub: Any, rng: random.Random) -> None:
        chunks = (pb.EmbedStreamRequest(chunk_id=n, request=self._request(rng, 8)) for n in range(20))
        if len(list(stub.EmbedStream(chunks, timeout=120))) != 20:
            self.faults.append("a stream ended early")

    def _leaving(self, stub: Any, rng: random.Random) -> None:
        call = stub.Embed.future(self._request(rng, rng.randint(1, 8)))
        time.sleep(rng.expovariate(200))
        self.cancelled += call.cancel()

    def _hurried(self, stub: Any, rng: random.Random) -> None:
        stub.Embed(self._request(rng, 4), timeout=rng.uniform(0.001, 0.05))

    def _request(self, rng: random.Random, count: int) -> pb.EmbedRequest:
        return pb.EmbedRequest(images=[types_pb2.Image(data=rng.choice(self._images)) for _ in range(count)])


def cancel_many(target: str, count: int) -> None:
    """Calls that are left a moment after they began, 64 of them at a time."""
    rng, image = random.Random(1), jpegs(1)[0]
    request = pb.EmbedRequest(images=[types_pb2.Image(data=image)])
    with grpc.insecure_channel(target) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        flying: list[Any] = []
        for _ in range(count):
            flying.append(stub.Embed.future(request))
            if len(flying) == 64:
                time.sleep(rng.uniform(0, 0.01))
                for call in flying:
                    call.cancel()
                flying.clear()
        for call in flying:
            call.cancel()


@contextmanager
def crowd(path: str, size: int) -> Iterator[None]:
    """Connections that say hello, and then nothing."""
    with ExitStack() as stack:
        for _ in range(size):
            idle = stack.enter_context(socket.socket(socket.AF_UNIX))
            idle.connect(path)
            idle.sendall(HELLO)
        yield


def settled(server: Server) -> dict[str, Any]:
    """The gauges once they have stopped falling."""
    limit = time.monotonic() + 20
    while (gauges := server.gauges())["images"] and time.monotonic() < limit:
        time.sleep(0.1)
    return gauges


def soak(server: Server, target: str, seconds: float) -> None:
    memory, allocated, times, begun = [], [], [], time.monotonic()
    with Load(target) as load:
        for _ in range(PARTS):
            time.sleep(seconds / PARTS)
            latencies, load.latencies = load.latencies, []
            gauges = server.gauges()
            memory.append(server.memory())
            allocated.append(gauges["allocated"] / 2**20)
            times.append((time.monotonic() - begun) / 3600)
            print(
                f"{times[-1] * 60:6.1f} min  {memory[-1]:7.1f} MiB, {allocated[-1]:7.1f} given out, "
                f"{gauges['blocks']} objects  {server.descriptors():3d} descriptors  "
                f"{len(latencies):6d} answers, p99 {np.percentile(latencies, 99) * 1e3:7.1f} ms  "
                f"{load.cancelled} left",
                flush=True,
            )
    half = PARTS // 2
    resident, given = (np.polyfit(times[half:], values[half:], 1)[0] for values in (memory, allocated))
    print(
        f"memory over the second half: {resident:+.1f} MiB an hour, given out {given:+.1f}; "
        f"faults: {load.faults[:3] or 'none'}"
    )
    if load.faults:
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--cancels", type=int, default=0, help="calls to begin and leave first")
    parser.add_argument("--idle", type=int, default=0, help="connections that stay and do nothing")
    parser.add_argument("--model", default="efficientnet_lite0", help="or tiny, or resnet50")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the server too
    with tempfile.TemporaryDirectory() as folder, served(options.model, f"unix:{folder}/s") as server:
        target = f"unix:{folder}/s"
        if options.cancels:
            started = time.monotonic()
            cancel_many(target, options.cancels)
            print(f"{options.cancels} calls left within {time.monotonic() - started:.0f} s", flush=True)
        if options.minutes:
            with crowd(f"{folder}/s", options.idle):
                soak(server, target, options.minutes * 60)
        gauges = settled(server)
        print(f"on the road at the end: {gauges}")
        if gauges["images"] or gauges["bytes"] or gauges["waiting"]:
            sys.exit(1)


if __name__ == "__main__":
    main()
