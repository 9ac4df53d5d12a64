"""The road of an image, from its bytes to its descriptors.

    event loop        room, and time enough before the deadline         -> refused, or waiting for room
                      sniff: format and size from the header alone      -> a fault of that image
    decode threads    digest; known, or on the road already?            -> no need to compute it
                      decode, resize, each image alone                  -> a fault of that image
    device threads    each takes what waits, as one batch               -> a fault of that batch
    event loop        one call back for each batch; a call whose images are all done is answered

A job is finished exactly once, whatever becomes of it. A job for which nobody waits any more is dropped
before it is decoded, and again before it is computed.

    engine (here)     names and outcomes
    door              who is let in
    road              where jobs end; a device that hangs
    served            the models and their recipes; a reload puts others in their place (reloading)
    stages            the threads, with the lines between them (batcher) and what batches cost (costs)
    replicas          those that compute, one for each device
    decoding          those that decode; one that hangs is replaced
    gpu_stage         the one that decodes on a GPU, where that was asked for
    cache             results that are known; identical images that share one
    readiness         whether it all works, seen by images; where there are none by canaries
    statistics        what is told to observers
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lookalike_extractor.errors import LookalikeError
from lookalike_extractor.images import ImageLimits

from lookalike_server.admission import Room
from lookalike_server.cache import ResultCache
from lookalike_server.caller import CALLER, note, share
from lookalike_server.canaries import Canaries
from lookalike_server.door import Door
from lookalike_server.errors import DeadlineUnreachable, DeviceStalled
from lookalike_server.jobs import Call, Job, Outcome, Source, joined
from lookalike_server.readiness import Health, Readiness
from lookalike_server.road import Road
from lookalike_server.served import Runner, Served, models_on
from lookalike_server.statistics import Statistics, Tally

if TYPE_CHECKING:
    from lookalike_extractor.preprocessing import Preprocessing
    from lookalike_extractor.recipe import Recipe, Space

    from lookalike_server.gpu_decoding import GpuDecoder

__all__ = ["Engine", "Outcome", "Source"]


class Engine:
    """Turns images into descriptors, for any number of callers at once. It belongs to one event loop.

    Args:
        recipes: by name; the first is the default.
        devices: one for each replica; each runs the models of those recipes.
        limits: of one image.
        most_images, most_bytes: on the road at once.
        max_batch: most images of one pass through a model.
        decode_threads: at least one.
        cache_bytes: of results that are kept; 0 means that every image is computed, identical ones too.
        max_call_seconds: after which a call that is not a stream ends, whatever its own deadline.
        canary_seconds: how long a model may be without work before a canary is sent; 0 sends none.
        stall_seconds: how long one batch may take before the device is taken to hang, and one image before
            its decoder is.
        gpu_decoder: takes ordinary JPEGs of the models that agree with it; None: the threads decode all.

    Attributes:
        device: names of its devices.
        decodes_on: the device that decodes JPEGs for at least one model; "" where none does.
        replicas: what computes, one for each device.
        draining: set it to refuse new calls; streams then end with Draining.
        served: what it serves now; `serve` changes it.
        canaries: for models that are not served yet.
        broken: set once the device answers nothing any more; only a new process helps.
        room: what is on the road now.
        tally: counts what happens; `tally.observers` are told.
        readiness: its `listeners` are told when that changes.
    """

    def __init__(
        self,
        recipes: Mapping[str, Recipe],
        *devices: Runner,
        limits: ImageLimits | None = None,
        most_images: int = 1024,
        most_bytes: int = 256 << 20,
        max_batch: int = 32,
        decode_threads: int = 1,
        cache_bytes: int = 0,
        max_call_seconds: float = 300.0,
        canary_seconds: float = 0.0,
        stall_seconds: float = 60.0,
        gpu_decoder: GpuDecoder | None = None,
    ) -> None:
        self.served = Served(recipes, models_on(devices))
        self.device = ",".join(dict.fromkeys(device.name for device in devices))
        self.room = Room(most_images, most_bytes)
        self.tally = Tally()
        self._max_call_seconds, self._canary_seconds = max_call_seconds, canary_seconds
        self._cache = ResultCache(cache_bytes)
        self._road = Road(
            devices,
            self.room,
            self._cache,
            self.tally,
            limits=limits or ImageLimits(),
            max_batch=max_batch,
            decode_threads=decode_threads,
            stall_seconds=stall_seconds,
            gpu_decoder=gpu_decoder,
        )
        self._gpu_decoder = gpu_decoder
        self.replicas = self._road.stages.replicas
        self.readiness = Readiness(self.served.models, self.replicas, canary_seconds)
        self._door = Door(self.room, self._road.stages, self.readiness)
        self.canaries = Canaries(
            self.readiness, self.replicas, self._travel, gpu_decode=gpu_decoder is not None
        )
        self.broken, self.draining = self._road.broken, self._door.draining

    async def start(self) -> None:
        """Starts the stages and returns once the device is warm. Raises what its models raise."""
        try:
            await self._road.start(self.readiness)
        except BaseException:
            await self.close()
            raise

    async def try_out(self) -> None:
        """Sends an image through each model on each replica, and again wherever no other has gone lately.

        Raises the fault of the first one that fails.
        """
        await self.canaries.check(self.served.models)
        if self._canary_seconds:
            self.canaries.start()

    def serve(self, served: Served) -> None:
        """Serves others from now on, whole at once. Images on the road end in the models they came for."""
        self.served, self.readiness.models = served, served.models
        self.readiness.suspect()
        self.readiness.tell()

    async def close(self) -> None:
        """Ends the stages once they have done what is on the road."""
        self.canaries.stop()
        await self._road.close()

    @property
    def recipes(self) -> Mapping[str, Recipe]:
        """By name; the first is the default."""
        return self.served.recipes

    @property
    def spaces(self) -> Mapping[str, Space]:
        """By recipe."""
        return self.served.spaces

    @property
    def decodes_on(self) -> str:
        used = any(model.gpu_decode for model in self.served.models)
        return self._gpu_decoder.device if self._gpu_decoder and used else ""

    @property
    def decoded(self) -> int:
        """Images that wait for the device."""
        return len(self._road.stages.decoded)

    def health(self) -> Health:
        return self.readiness.health()

    def statistics(self) -> Statistics:
        return Statistics(
            images=self.room.images,
            bytes=self.room.bytes,
            waiting=self._road.stages.waiting(),
            done=dict(self.tally.done),
            failed=dict(self.tally.failed),
            refused=dict(self.tally.refusals),
            batches=dict(self.tally.batches),
            cache=self._cache.statistics(),
            restarts=dict(self.tally.restarts),
        )

    def recipe_name(self, name: str) -> str:
        """Returns the name, or the default's for "". Raises RecipeUnknown."""
        return self.served.recipe_name(name)

    def preprocessing(self, recipe: str) -> Preprocessing:
        """How images are decoded for a recipe of this engine."""
        return self.served.model_of[recipe].preprocessing

    async def embed(
        self, images: Sequence[Source], recipes: Sequence[str], *, wait: bool = False
    ) -> list[Outcome]:
        """Returns the outcome of each image, in order; a fault of an image is in its outcome.

        Whose call it is and its deadline are taken from `caller.CALLER`.

        Args:
            images: files, or pixels uint8 [h, w, 3] RGB upright.
            recipes: names; none means the default.
            wait: waits for room, as bulk work should, instead of being refused.

        Raises RecipeUnknown, QueueFull, DeadlineUnreachable, DeviceStalled, Draining. When the caller is
        cancelled its images are dropped.
        """
        names = [self.recipe_name(name) for name in recipes or [""]]
        if not images:
            return []
        call = self._call(bulk=wait)
        models = list(dict.fromkeys(self.served.model_of[name] for name in names))
        rows = [[Job.of(call, image, model) for model in models] for image in images]
        jobs = [job for row in rows for job in row]
        async with share(len(images), wait=wait):
            await self._travel(call, jobs)
        outcomes = [joined([job.outcome for job in row], names) for row in rows]
        note(outcomes)
        return outcomes

    def _call(self, *, bulk: bool) -> Call:
        caller, latest = CALLER.get(), math.inf if bulk else time.monotonic() + self._max_call_seconds
        return Call(
            asyncio.get_running_loop().create_future(),
            pending=0,
            bulk=bulk,
            client=caller.name,
            deadline=min(caller.deadline, latest),
        )

    async def _travel(self, call: Call, jobs: Sequence[Job]) -> None:
        try:
            await self._door.admit(call, jobs)
        except LookalikeError as error:
            self.tally.refused(error.reason, len(jobs))
            raise
        call.pending = len(jobs)
        try:
            self._road.send(call, jobs)
            async with asyncio.timeout_at(None if call.deadline == math.inf else call.deadline):
                await call.done
            self._door.learn(call)
        except TimeoutError:
            self._door.learn(call)
            raise DeadlineUnreachable("The deadline passed before the work was done.") from None
        finally:
            call.left = True
        for job in jobs:
            if isinstance(job.outcome.error, DeviceStalled):
                raise job.outcome.error
