"""What one server process gives of what its device and its decoders can do.

    python benchmarks/serving/device_share.py --model efficientnet_lite0
    python benchmarks/serving/device_share.py --model resnet50 --device cuda:0 --batch 256
    python benchmarks/serving/device_share.py --model resnet50 --device cuda:0 --batch 256 --runtime graphs
    python benchmarks/serving/device_share.py --model resnet50 --device cuda:0 --batch 256 --gpu-decode

Images a second of decoding alone, in as many threads as the server takes, or on the GPU; of the model alone,
in full batches of pixels that are decoded already, as many in flight as the device takes; and of a server of
one process that is asked by streams (chunks of 32) from processes of their own. The share is that of the
smaller of the first two. On the CPU all three take the same cores and it cannot reach 1: there it shows that
the command works.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import cycle, islice
from multiprocessing import get_context
from typing import TYPE_CHECKING

import asking
import numpy as np
from sides import served

if TYPE_CHECKING:
    from shared import Work

CHUNK = 32
# Until all who ask have been started.
STARTING_SECONDS = 8.0


def decoding(work: Work, images: list[bytes], seconds: float) -> float:
    """Images a second."""
    from lookalike_server.device import threads

    with ThreadPoolExecutor(threads(work.device.name).decode) as pool:
        return _rate(iter(lambda: len(list(pool.map(work.decode, images))), 0), seconds)


def decoding_on_gpu(work: Work, images: list[bytes], seconds: float) -> float:
    """Images a second, in batches as large as the server's are at the most."""
    from lookalike_extractor.images import sniff
    from lookalike_server.gpu_decoding import gpu_decoder
    from lookalike_server.gpu_stage import MOST_TOGETHER

    decoder = gpu_decoder(work.device.name)
    files = list(islice(cycle(images), MOST_TOGETHER))
    layouts = [layout for file in files if (layout := sniff(file).layout)]
    return _rate(iter(lambda: len(decoder.decode(files, layouts, work.preprocessing)), 0), seconds)


def computing(work: Work, images: list[bytes], batch: int, seconds: float) -> float:
    """Images a second."""
    pixels = list(islice(cycle([work.decode(image) for image in images]), batch))
    work.device.run(0, pixels)
    return _rate(_batches(work, pixels), seconds)


def _batches(work: Work, pixels: list[np.ndarray]) -> Iterator[int]:
    flights: deque = deque()
    while True:
        flights.append(work.device.begin(0, pixels))
        if len(flights) == work.device.at_once:
            yield len(next(iter(flights.popleft().result().values())))


def _rate(work: Iterator[int], seconds: float) -> float:
    done, started = 0, time.monotonic()
    while time.monotonic() - started < seconds:
        done += next(work)
    return done / (time.monotonic() - started)


def serving(target: str, options: argparse.Namespace) -> float:
    """Images a second, of all who ask together."""
    begin = time.monotonic() + STARTING_SECONDS
    ask = [(target, options.streams, begin, options.seconds)] * options.processes
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        return sum(pool.map(_asked, *zip(*ask, strict=True)))


def _asked(target: str, streams: int, begin: float, seconds: float) -> float:
    from shared import jpegs

    images = list(islice(cycle(jpegs()), CHUNK))

    def rate(_: int) -> float:
        ask = asking.stream(target)
        ask(images)
        time.sleep(max(0.0, begin - time.monotonic()))
        return _rate(iter(lambda: len(ask(images)), None), seconds)

    with ThreadPoolExecutor(streams) as pool:
        return sum(pool.map(rate, range(streams)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="tiny, efficientnet_lite0 or resnet50")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--runtime", default="eager", help="as the server's setting; tiny runs in eager")
    parser.add_argument("--batch", type=int, default=32, help="images of the largest batch")
    parser.add_argument("--gpu-decode", action="store_true", help="JPEGs are decoded on that GPU")
    parser.add_argument("--processes", type=int, default=2, help="that ask")
    parser.add_argument("--streams", type=int, default=4, help="of each of them")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    options = parser.parse_args()
    os.environ |= {"MODEL_DEVICE": options.device, "MODEL_RUNTIME": options.runtime}
    os.environ |= {"MODEL_BATCH": str(options.batch), "MODEL_GPU_DECODE": "1" if options.gpu_decode else ""}
    from shared import Work, jpegs  # it looks at the environment

    images = jpegs()
    with tempfile.TemporaryDirectory() as folder, served("stream", options.model, folder, images[0]) as side:
        served_rate = serving(side.target, options)
    work = Work(options.model)
    decode = decoding_on_gpu if options.gpu_decode else decoding
    decoded = decode(work, images, options.seconds)
    computed = computing(work, images, options.batch, options.seconds)
    print(
        f"{options.model} on {options.device} ({options.runtime}, batches of {options.batch}): "
        f"decoding {decoded:.0f} images/s, model {computed:.0f}, served by one process {served_rate:.0f}, "
        f"{served_rate / min(decoded, computed):.2f} of the smaller"
    )


if __name__ == "__main__":
    main()
