"""Serving beside the same decoding and model in one process, and beside other servers.

    python benchmarks/serving/run.py --model tiny --clients 1 16 64
    python benchmarks/serving/run.py --model resnet50 --clients 16 --seconds 10
    python benchmarks/serving/run.py --bad 0.01 --ways unary litserve=PYTHON mosec=PYTHON
    python benchmarks/serving/run.py --ways unary stream mlserver=PYTHON triton=PYTHON
    python benchmarks/serving/run.py --model efficientnet_lite0 --rates 20 40 60 --ways unary

Clients are closed loops in one process of their own: each sends an image (a stream: a chunk of 16) and waits
for the answer. With --rates there are open loops too: images are meant to leave at that rate, from up to 64
clients, and latencies count from then. Before a server is measured it must give the descriptors that the work
alone gives, to 1e-5.
A row tells images a second, their ratio to decoding and model alone (batches of 16 in one process, on all
cores, decoded in one thread or in two, as is faster), latencies, CPU of the server per image, also less that
of decoding and model, and good images lost. The work alone is measured before and after each row, while the
server has nothing to do.

Another server comes with the interpreter where it is installed; that takes torch, the model and the decoding
from this one, and must be the same version of Python:

    pip install litserve mosec
    pip install mlserver 'uvloop<0.22'                   # in an environment of its own; later ones fail
    pip install nvidia-pytriton==0.7.0 'numpy<2'         # likewise, made with Debian's /usr/bin/python3
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from asking import Ask
from shared import Work, jpegs
from sides import Side, served

CHUNK = 16
MOST_DIFFERENT = 1e-5
TRIED_SECONDS = 0.7
OPEN_CLIENTS = 64


@dataclass
class Load:
    """What came of some clients."""

    sent: int = 0
    good: int = 0
    answered: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


class Alone:
    """Decoding and model in this process, in the faster of two ways: decoding in one thread or in two."""

    def __init__(self, work: Work, images: list[bytes]) -> None:
        self._work = work
        self._batch = list(itertools.islice(itertools.cycle(images), CHUNK))
        speeds = {}
        for decode in (map, ThreadPoolExecutor(2).map):
            self._decode: Any = decode
            self.measure(TRIED_SECONDS)
            speeds[decode], _ = self.measure(TRIED_SECONDS)
        self._decode = max(speeds, key=lambda decode: speeds[decode])

    def descriptors(self) -> Any:
        return self._work.compute(list(self._decode(self._work.decode, self._batch)))

    def measure(self, seconds: float) -> tuple[float, float]:
        """Images a second, and CPU seconds of one."""
        done, cpu, started = 0, time.process_time(), time.monotonic()
        while time.monotonic() - started < seconds:
            self.descriptors()
            done += CHUNK
        return done / (time.monotonic() - started), (time.process_time() - cpu) / done

    def compare(self, ask: Ask) -> None:
        """Ends the process unless a server gives the same descriptors."""
        theirs = np.concatenate([ask([image]) for image in self._batch])
        different = float(np.abs(theirs - self.descriptors()).max())
        print(f"descriptors differ by {different:.1e} at the most", flush=True)
        if not different <= MOST_DIFFERENT:
            sys.exit("these are not the same descriptors")


def closed_loop(
    make: Callable[[], Ask], images: list[bytes], clients: int, at_once: int, seconds: float
) -> Load:
    """Each client sends as soon as it has been answered."""

    def now(_: int, begun: float) -> float | None:
        moment = time.monotonic()
        return moment if moment < begun + seconds else None

    return _loaded(make, images, clients, at_once, now)


def open_loop(make: Callable[[], Ask], images: list[bytes], rate: float, seconds: float) -> Load:
    """So many images are meant to leave in a second, whatever became of those before."""

    def meant(number: int, begun: float) -> float | None:
        return begun + number / rate if number < seconds * rate else None

    return _loaded(make, images, OPEN_CLIENTS, 1, meant)


def _loaded(
    make: Callable[[], Ask],
    images: list[bytes],
    clients: int,
    at_once: int,
    leaves: Callable[[int, float], float | None],
) -> Load:
    """Args:
    leaves: when the call of a number is meant to, of those that began at that time; None: no more.
    """
    load, lock, supply, numbers = Load(), threading.Lock(), itertools.cycle(images), itertools.count()
    good, begun = {image for image in images if len(image) > 100}, list[float]()
    begin = threading.Barrier(clients + 1, action=lambda: begun.append(time.monotonic()))

    def client() -> None:
        ask = make()
        begin.wait()
        while True:
            with lock:
                meant = leaves(next(numbers), begun[-1])
                batch = list(itertools.islice(supply, at_once))
            if meant is None:
                return
            time.sleep(max(0.0, meant - time.monotonic()))
            answered = len(ask(batch))
            with lock:
                load.latencies.append(time.monotonic() - meant)
                load.sent += len(batch)
                load.good += sum(image in good for image in batch)
                load.answered += answered

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    begin.wait()
    for thread in threads:
        thread.join()
    load.seconds = time.monotonic() - begun[-1]
    return load


def rows(name: str, side: Side, alone: Alone, images: list[bytes], options: argparse.Namespace) -> None:
    floor = alone.measure(options.seconds)
    at_once = CHUNK if name == "stream" else 1
    loads = [
        (f"{clients:3d} clients", partial(closed_loop, side.make, images, clients, at_once, options.seconds))
        for clients in options.clients
    ]
    if at_once == 1:
        loads += [
            (f"{rate:3g} a second", partial(open_loop, side.make, images, rate, options.seconds))
            for rate in options.rates
        ]
    for title, load in loads:
        before = side.cpu_seconds()
        ends = load()
        cpu = side.cpu_seconds() - before
        again = alone.measure(options.seconds)
        report(f"{name:9s} {title}", ends, cpu, *((a + b) / 2 for a, b in zip(floor, again, strict=True)))
        floor = again


def report(title: str, load: Load, cpu: float, rate: float, each: float) -> None:
    if not load.answered:
        print(f"{title}  no image came back of {load.sent}", flush=True)
        return
    latencies = np.array(load.latencies) * 1000
    speed = load.answered / load.seconds
    print(
        f"{title} {speed:8.1f} images/s  {speed / rate:5.2f} of {rate:6.1f} alone  "
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
    parser.add_argument("--rates", type=float, nargs="*", default=[], help="images a second, open loop")
    parser.add_argument("--ways", nargs="+", default=["unary", "stream"])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--bad", type=float, default=0.0, help="share of images that are none")
    options = parser.parse_args()

    images = good = jpegs()
    if options.bad:
        images = (images * 100)[: round(len(images) / options.bad / 32) * 32]
        images[:: round(1 / options.bad)] = [b"no image"] * len(images[:: round(1 / options.bad)])
    alone = Alone(Work(options.model), good)
    with tempfile.TemporaryDirectory() as folder:
        for way in options.ways:
            with served(way, options.model, folder, good[0]) as side:
                alone.compare(side.make())
                rows(way.partition("=")[0], side, alone, images, options)


if __name__ == "__main__":
    main()
