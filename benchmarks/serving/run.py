"""Serving beside the same decoding and model in one process, and beside other servers.

    python benchmarks/serving/run.py --model tiny --clients 1 16 64
    python benchmarks/serving/run.py --model resnet50 --clients 16 --seconds 10
    python benchmarks/serving/run.py --ways unary litserve mosec --peers OTHER/bin/python
    python benchmarks/serving/run.py --bad 0.01

Clients are closed loops in one process of their own: each sends an image (a stream: a chunk of 16) and waits
for the answer. A row tells images a second, their ratio to decoding and model alone (batches of 16 in one
process, on all cores), latencies, CPU of the server per image, also less that of decoding and model, and good
images lost. Other servers run in the Python of --peers, where litserve and mosec are installed; it takes all
else from this one. Each row takes --seconds, as does the measure alone before each server; each server takes
some ten seconds to start.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import grpc
import numpy as np
from lookalike.v1 import embedding_pb2 as pb
from lookalike.v1 import embedding_pb2_grpc, types_pb2
from shared import Work, jpegs

HERE = Path(__file__).parent
CHUNK = 16
Ask = Callable[[list[bytes]], int]
"""Sends images and returns how many came back with a descriptor."""


@dataclass
class Load:
    """What came of some clients."""

    sent: int = 0
    good: int = 0
    answered: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


def cpu_seconds(pid: int) -> float:
    """Of a process and its descendants."""
    ticks = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    children = (Path(f"/proc/{pid}/task/{task}/children") for task in os.listdir(f"/proc/{pid}/task"))
    below = (child for path in children for child in path.read_text().split())
    return ticks / os.sysconf("SC_CLK_TCK") + sum(cpu_seconds(int(child)) for child in below)


def alone(work: Work, images: list[bytes], seconds: float) -> tuple[float, float]:
    """Images a second, and CPU seconds of one, of decoding and model in this process."""
    batch = list(itertools.islice(itertools.cycle(images), CHUNK))
    work.compute([work.decode(image) for image in batch])
    done, cpu, started = 0, time.process_time(), time.monotonic()
    while time.monotonic() - started < seconds:
        work.compute([work.decode(image) for image in batch])
        done += CHUNK
    return done / (time.monotonic() - started), (time.process_time() - cpu) / done


def closed_loop(
    make: Callable[[], Ask], images: list[bytes], clients: int, at_once: int, seconds: float
) -> Load:
    load, lock, supply = Load(), threading.Lock(), itertools.cycle(images)
    begin, limit = threading.Barrier(clients + 1), [0.0]

    def client() -> None:
        ask = make()
        begin.wait()
        while time.monotonic() < limit[0]:
            with lock:
                batch = list(itertools.islice(supply, at_once))
            started = time.monotonic()
            answered = ask(batch)
            with lock:
                load.latencies.append(time.monotonic() - started)
                load.sent += len(batch)
                load.good += sum(image in good for image in batch)
                load.answered += answered

    good = {image for image in images if len(image) > 100}
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    limit[0] = time.monotonic() + seconds
    begin.wait()
    started = time.monotonic()
    for thread in threads:
        thread.join()
    load.seconds = time.monotonic() - started
    return load


def request(images: list[bytes]) -> pb.EmbedRequest:
    return pb.EmbedRequest(images=[types_pb2.Image(data=image) for image in images])


def answered(response: pb.EmbedResponse) -> int:
    return sum(not result.status.code for result in response.results)


def unary(target: str) -> Ask:
    stub = embedding_pb2_grpc.EmbeddingServiceStub(grpc.insecure_channel(target))
    return lambda images: answered(stub.Embed(request(images)))


def stream(target: str) -> Ask:
    """Keeps one stream open; a chunk is in flight beside the one that is waited for."""
    outbox: SimpleQueue[pb.EmbedStreamRequest] = SimpleQueue()
    stub = embedding_pb2_grpc.EmbeddingServiceStub(grpc.insecure_channel(target))
    answers = stub.EmbedStream(iter(outbox.get, None))

    def ask(images: list[bytes]) -> int:
        outbox.put(pb.EmbedStreamRequest(request=request(images)))
        return answered(next(answers).response)

    return ask


def posting(port: int, path: str, encode: Callable[[bytes], bytes]) -> Callable[[str], Ask]:
    def make(_: str) -> Ask:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

        def ask(images: list[bytes]) -> int:
            connection.request("POST", path, encode(images[0]), {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            return int(response.status == 200)

        return ask

    return make


@contextmanager
def served(command: list[str], environment: dict[str, str]) -> Iterator[int]:
    """A server's process; yields its id."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=os.environ | environment,
        cwd=HERE,
        start_new_session=True,
    )
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with the workers, some of which outlive their parent
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def patiently(make: Callable[[str], Ask], target: str, image: bytes, seconds: float = 40) -> None:
    """Waits until the server answers."""
    limit = time.monotonic() + seconds
    while True:
        try:
            if make(target)([image]):
                return
        except (grpc.RpcError, OSError, http.client.HTTPException):
            pass
        if time.monotonic() > limit:
            sys.exit("the server does not answer")
        time.sleep(0.2)


def sides(
    way: str, model: str, peers: str, folder: str
) -> tuple[list[str], dict[str, str], Callable[[str], Ask], str]:
    """The command of a server, its environment, and how to ask it."""
    if way in ("unary", "stream"):
        target = f"unix:{folder}/{way}"
        ask = unary if way == "unary" else stream
        return [sys.executable, "ours.py", model, target], {}, ask, target
    port = free_port()
    # Peers have an interpreter of their own, which finds the shared modules where this one does.
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if way == "litserve":
        command = [peers, "litserve_side.py", model, str(port)]
        return command, environment, posting(port, "/predict", _as_json), ""
    environment |= {"MODEL": model, "PORT": str(port)}
    return [peers, "mosec_side.py"], environment, posting(port, "/inference", lambda image: image), ""


def _as_json(image: bytes) -> bytes:
    return json.dumps({"image": base64.b64encode(image).decode()}).encode()


def report(name: str, clients: int, load: Load, cpu: float, rate: float, each: float) -> None:
    if not load.answered:
        print(f"{name:9s} {clients:3d} clients  no image came back of {load.sent}", flush=True)
        return
    latencies = np.array(load.latencies) * 1000
    speed = load.answered / load.seconds
    print(
        f"{name:9s} {clients:3d} clients {speed:8.1f} images/s  {speed / rate:5.2f} of alone  "
        f"p50 {np.percentile(latencies, 50):7.1f} ms  p99 {np.percentile(latencies, 99):7.1f} ms  "
        f"CPU {cpu / load.answered * 1e3:7.2f} ms, {(cpu / load.answered - each) * 1e3:+6.2f} besides  "
        f"good lost {load.good - load.answered:3d} of {load.good}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="tiny, efficientnet_lite0 or resnet50")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--ways", nargs="+", default=["unary", "stream"])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--bad", type=float, default=0.0, help="share of images that are none")
    parser.add_argument("--peers", default=sys.executable)
    options = parser.parse_args()

    images, work = jpegs(), Work(options.model)
    if options.bad:
        images = (images * 100)[: round(len(images) / options.bad / 32) * 32]
        images[:: round(1 / options.bad)] = [b"no image"] * len(images[:: round(1 / options.bad)])
    with tempfile.TemporaryDirectory() as folder:
        for way in options.ways:
            # Again for each server, because other work on the machine comes and goes.
            rate, each = alone(work, jpegs(), options.seconds)
            print(f"alone     {rate:.1f} images/s, CPU {each * 1e3:.2f} ms an image", flush=True)
            command, environment, make, target = sides(way, options.model, options.peers, folder)
            with served(command, environment) as pid:
                patiently(make, target, jpegs(1)[0])
                for clients in options.clients:
                    before = cpu_seconds(pid)
                    at_once = CHUNK if way == "stream" else 1
                    load = closed_loop(lambda: make(target), images, clients, at_once, options.seconds)  # noqa: B023
                    report(way, clients, load, cpu_seconds(pid) - before, rate, each)


if __name__ == "__main__":
    main()
