"""Images of our own, sent all the way: each model on each replica, past every stored result."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

from lookalike_extractor.errors import LookalikeError
from PIL import Image

from lookalike_server.errors import DeviceStalled
from lookalike_server.gpu_agreement import settle_gpu_decode
from lookalike_server.jobs import Call, Job
from lookalike_server.supervised import forever

if TYPE_CHECKING:
    from lookalike_server.readiness import Readiness
    from lookalike_server.replicas import Replica
    from lookalike_server.served import Model


@cache
def canary() -> bytes:
    """A PNG of 64 x 64 pixels."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (120, 160, 200)).save(file, "PNG")
    return file.getvalue()


class Canaries:
    """They belong to the engine's event loop.

    Args:
        travel: takes a call's jobs through the engine and returns once they have ended.
        gpu_decode: whether a GPU decodes for models with which it agrees.
    """

    def __init__(
        self,
        readiness: Readiness,
        replicas: Sequence[Replica],
        travel: Callable[[Call, Sequence[Job]], Awaitable[None]],
        *,
        gpu_decode: bool = False,
    ) -> None:
        self._gpu_decode = gpu_decode
        self._readiness, self._replicas, self._travel = readiness, replicas, travel
        self._tasks: list[asyncio.Task[None]] = []

    async def check(self, models: Iterable[Model]) -> None:
        """Sends one through each model on each replica that is in no trouble.

        Raises the first fault, and DeviceStalled when there is no such replica.
        """
        working = [replica for replica in self._replicas if not replica.trouble]
        if not working:
            raise DeviceStalled(f"Nothing can be tried: {self._replicas[0].trouble}. Try again in a while.")
        for model in models:
            for replica in working:
                if (fault := await self._probe(model, replica.number)) is not None:
                    raise fault
            if self._gpu_decode:
                await settle_gpu_decode(model, working[0].number, self._travel)

    def start(self) -> None:
        """Sends them from now on wherever no other image has gone lately, through each replica by itself."""
        self._tasks = [
            asyncio.create_task(forever(partial(self._readiness.send_canaries, replica, self._probe)))
            for replica in self._replicas
        ]

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _probe(self, model: Model, replica: int) -> LookalikeError | None:
        """Sends one; returns its fault."""
        call = Call(asyncio.get_running_loop().create_future(), 0, bulk=False, client="canary", probe=True)
        job = Job.of(call, canary(), model)
        job.replica = replica
        try:
            await self._travel(call, [job])
        except DeviceStalled as error:
            return error
        return job.outcome.error
