"""How fast a server answers: callers that wait for each other's answers, or calls at a rate of their own.

Closed loop: as many callers as asked for, each sending its next call when its last one was answered. It shows
what a server can do at most.

Open loop: calls leave at random times at a given rate, whether or not the ones before were answered, as
strangers do. Latency counts from the moment a call was meant to leave, so that a server that stops for a
second is charged for all who came meanwhile.

Nothing is tried again: what was refused is counted by its reason.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from lookalike import _shared
from lookalike._connection import Access
from lookalike.errors import InvalidArgument
from lookalike.v1 import embedding_pb2, embedding_pb2_grpc, models_pb2, models_pb2_grpc, types_pb2

# Calls of the open loop that may be unanswered at once; more would measure this program's memory.
_MOST_UNANSWERED = 4096
_SHARES = (50, 90, 99, 99.9)


@dataclass(frozen=True)
class Load:
    """What to ask for.

    Args:
        images: a call.
        callers: of the closed loop.
        rate: images a second of the open loop; None: closed.
        seconds, warmup: how long to count, and how long not to count before.
        timeout: deadline of a call in seconds.
        cached: sends the same bytes again and again, which a server may remember.
    """

    recipe: str = ""
    images: int = 1
    callers: int = 8
    rate: float | None = None
    seconds: float = 10.0
    warmup: float = 1.0
    timeout: float = 30.0
    cached: bool = False


@dataclass
class Result:
    """What came of it.

    Attributes:
        latencies: of the calls that were answered, in seconds.
        images: that became descriptors.
        errors: calls and images that failed, by reason.
        client_cpu: cores that this program itself was busy with; near 1 it is the bottleneck.
    """

    seconds: float = 0.0
    images: int = 0
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    client_cpu: float = 0.0

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0

    def milliseconds(self) -> dict[str, float]:
        """Percentiles of the latency, and its maximum; empty when no call was answered."""
        if not self.latencies:
            return {}
        values = np.percentile(self.latencies, _SHARES)
        found = {f"p{share:g}": float(value) * 1000 for share, value in zip(_SHARES, values, strict=True)}
        return found | {"max": max(self.latencies) * 1000}


async def measure(access: Access, files: Sequence[bytes], load: Load) -> Result:
    """Asks the server for descriptors of the files, over and over.

    Raises the error of the first call when that one fails: a wrong address or recipe is no measurement. So is
    a call that is larger than the server reads: InvalidArgument.
    """
    channel = access.aio_channel(options=[("grpc.enable_retries", 0)])
    info: Any = models_pb2_grpc.ModelServiceStub(channel).GetServerInfo
    runner = _Runner(embedding_pb2_grpc.EmbeddingServiceStub(channel), files, load)
    try:
        told = await info(models_pb2.GetServerInfoRequest(), timeout=load.timeout)
        _check_size(files, load.images, told.limits)
        await runner.call()
        return await runner.run()
    except grpc.RpcError as error:
        raise _shared.error_of(error, access.target) from None
    finally:
        await channel.close()


def _check_size(files: Sequence[bytes], images: int, limits: models_pb2.Limits) -> None:
    """Raises InvalidArgument for calls that the server would not read."""
    if images > limits.max_images_per_message:
        raise InvalidArgument(
            f"the server takes at most {limits.max_images_per_message:,} images a call, not {images:,}; "
            "ask for fewer with --images"
        )
    largest = sum(map(len, itertools.islice(itertools.cycle(sorted(files, key=len, reverse=True)), images)))
    if largest > limits.max_message_bytes:
        raise InvalidArgument(
            f"calls of {images:,} of these photos have up to {largest:,} bytes, the server reads at most "
            f"{limits.max_message_bytes:,}; ask for fewer with --images"
        )


class _Runner:
    def __init__(self, stub: Any, files: Sequence[bytes], load: Load) -> None:
        self._embed = stub.Embed
        self._files = itertools.cycle(files)
        self._load = load
        self._serial = itertools.count(random.getrandbits(62))
        self._result = Result()
        self._begin = self._end = 0.0

    async def run(self) -> Result:
        load = self._load
        self._begin = time.monotonic() + load.warmup
        self._end = self._begin + load.seconds
        cpu = _cpu_seconds()
        started = time.monotonic()
        if load.rate is None:
            await asyncio.gather(*(self._caller() for _ in range(load.callers)))
        else:
            await self._strangers(load.rate / load.images)
        self._result.client_cpu = (_cpu_seconds() - cpu) / (time.monotonic() - started)
        self._result.seconds = load.seconds
        return self._result

    async def _caller(self) -> None:
        while (now := time.monotonic()) < self._end:
            await self._counted(now)

    async def _strangers(self, calls_per_second: float) -> None:
        unanswered = asyncio.Semaphore(_MOST_UNANSWERED)
        async with asyncio.TaskGroup() as group:
            async for intended in _moments(calls_per_second, self._end):
                await unanswered.acquire()
                task = group.create_task(self._counted(intended))
                task.add_done_callback(lambda _: unanswered.release())

    async def _counted(self, intended: float) -> None:
        """One call. The closed loop counts it when it ends in time, the open one when it was meant to."""
        error: grpc.RpcError | None = None
        answer = None
        try:
            answer = await self.call()
        except grpc.RpcError as fault:
            error = fault
        now = time.monotonic()
        moment = now if self._load.rate is None else intended
        if self._begin <= moment < self._end:
            self._count(now - intended, answer, error)

    def _count(self, seconds: float, answer: Any, error: grpc.RpcError | None) -> None:
        result = self._result
        if error is not None:
            result.errors[_reason(error)] += 1
            return
        result.latencies.append(seconds)
        for image in answer.results:
            if image.HasField("status"):
                result.errors[_shared.error_info(image.status).reason] += 1
            else:
                result.images += 1

    async def call(self) -> Any:
        files = itertools.islice(self._files, self._load.images)
        made = files if self._load.cached else (unlike(file, next(self._serial)) for file in files)
        request = embedding_pb2.EmbedRequest(images=[types_pb2.Image(data=file) for file in made])
        if self._load.recipe:
            request.recipes.append(self._load.recipe)
        return await self._embed(request, timeout=self._load.timeout)


async def _moments(per_second: float, end: float) -> AsyncIterator[float]:
    """Random moments (a Poisson process), each when it has come."""
    moment = time.monotonic()
    while (moment := moment + random.expovariate(per_second)) < end:
        await asyncio.sleep(max(0.0, moment - time.monotonic()))
        yield moment


def unlike(file: bytes, serial: int) -> bytes:
    """The same picture in other bytes, for a server that remembers pictures: a comment in a JPEG.

    Files of other formats stay as they are.
    """
    if not file.startswith(b"\xff\xd8"):
        return file
    return file[:2] + b"\xff\xfe\x00\x0a" + serial.to_bytes(8, "big") + file[2:]


def made_pictures(count: int = 16, width: int = 640, height: int = 480) -> list[bytes]:
    """JPEGs of about the weight of photos: clouds of many sizes, with a little noise."""
    from io import BytesIO

    from PIL import Image

    random_numbers = np.random.default_rng(20)
    files = []
    for _ in range(count):
        picture = random_numbers.normal(0, 6, (height, width, 3))
        for cells in (3, 9, 27):
            coarse = Image.fromarray(random_numbers.integers(0, 256, (cells, cells, 3), np.uint8))
            picture += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64) / 3
        file = BytesIO()
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def _reason(error: Any) -> str:
    """The server's reason, or the name of the code."""
    return _shared.error_of(error, "").reason or str(error.code().name)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
