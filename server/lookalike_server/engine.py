"""The road of an image, from its bytes to its descriptors.

    event loop        room: images and bytes on the road are bounded    -> QueueFull, or waiting for room
                      sniff: format and size from the header alone      -> a fault of that image
    decode threads    digest, decode, resize, each image alone          -> a fault of that image
    device thread     takes what waits, as one batch                    -> a fault of that batch
    event loop        one call back for each batch; a call whose images are all done is answered

A job is finished exactly once, whatever becomes of it. A job whose caller has left is dropped before it is
decoded, and again before it is computed.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from lookalike_extractor.errors import LookalikeError, PixelLimit, did_you_mean
from lookalike_extractor.images import ImageLimits, decode, fit, sniff
from numpy.typing import NDArray

from lookalike_server.admission import Room
from lookalike_server.batcher import Call, Job, Line, Outcome
from lookalike_server.errors import Draining, InternalError, QueueFull, RecipeUnknown
from lookalike_server.wire import internal

if TYPE_CHECKING:
    from lookalike_extractor.images import Preprocessing
    from lookalike_extractor.recipe import Recipe, Space

    from lookalike_server.device import Descriptors, Pixels

__all__ = ["Engine", "Outcome", "Source"]

Source = bytes | NDArray[np.uint8]

# Handing images one at a time from thread to thread costs more than decoding small ones. Large ones are
# handed on as they come.
_DECODED_TOGETHER = 8
_HELD_SECONDS = 0.003


class Model(Protocol):
    """What the engine needs to know of a model (lookalike_extractor.DescriptorModel)."""

    spaces: dict[str, Space]
    preprocessing: Preprocessing


class Runner(Protocol):
    """What the engine needs of a device (device.Device)."""

    @property
    def name(self) -> str: ...
    @property
    def models(self) -> Sequence[Model]: ...
    def warm_up(self) -> None: ...
    def usable(self) -> bool: ...
    def run(self, model: int, pixels: Sequence[Pixels]) -> Descriptors: ...


class Engine:
    """Turns images into descriptors, for any number of callers at once. It belongs to one event loop.

    Args:
        recipes: by name; the first is the default.
        device: runs the models of those recipes.
        limits: of one image.
        most_images, most_bytes: on the road at once.
        max_batch: most images of one pass through a model.
        decode_threads: at least one.

    Attributes:
        draining: set it to refuse new calls; streams then end with Draining.
        broken: set once the device answers nothing any more; only a new process helps.
    """

    def __init__(
        self,
        recipes: Mapping[str, Recipe],
        device: Runner,
        *,
        limits: ImageLimits | None = None,
        most_images: int = 1024,
        most_bytes: int = 256 << 20,
        max_batch: int = 32,
        decode_threads: int = 1,
    ) -> None:
        spaces = {name: space for model in device.models for name, space in model.spaces.items()}
        self.recipes = recipes
        self.spaces: Mapping[str, Space] = {name: spaces[name] for name in recipes}
        self.device = device.name
        self.room = Room(most_images, most_bytes)
        self.draining = asyncio.Event()
        self.broken = asyncio.Event()
        self._device = device
        self._model_of = {name: i for i, model in enumerate(device.models) for name in model.spaces}
        self._limits = limits or ImageLimits()
        self._max_batch = max_batch
        self._seconds_per_image = 0.01
        self._arrived, self._decoded = Line(), Line()
        self._decoders = [
            threading.Thread(target=self._decode_stage, name=f"decode-{i}", daemon=True)
            for i in range(decode_threads)
        ]
        self._computer = threading.Thread(target=self._device_stage, name="device", daemon=True)

    async def start(self) -> None:
        """Starts the stages and returns once the device is warm. Raises what its models raise."""
        self._loop = asyncio.get_running_loop()
        self._warm: asyncio.Future[None] = self._loop.create_future()
        for thread in (self._computer, *self._decoders):
            thread.start()
        try:
            await self._warm
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Ends the stages once they have done what is on the road."""
        self._arrived.close()
        for thread in self._decoders:
            await asyncio.to_thread(thread.join)
        self._decoded.close()
        await asyncio.to_thread(self._computer.join)

    @property
    def decoded(self) -> int:
        """Images that wait for the device."""
        return len(self._decoded)

    def recipe_name(self, name: str) -> str:
        """Returns the name, or the default's for "". Raises RecipeUnknown."""
        if not name:
            return next(iter(self.recipes))
        if name not in self.recipes:
            near = did_you_mean(name, self.recipes)
            raise RecipeUnknown(f"There is no recipe {name!r} on this server.{near}", recipe=name)
        return name

    def preprocessing(self, recipe: str) -> Preprocessing:
        """How images are decoded for a recipe of this engine."""
        return self._device.models[self._model_of[recipe]].preprocessing

    async def embed(
        self, images: Sequence[Source], recipes: Sequence[str], *, wait: bool = False
    ) -> list[Outcome]:
        """Returns the outcome of each image, in order; a fault of an image is in its outcome.

        Args:
            images: files, or pixels uint8 [h, w, 3] RGB upright.
            recipes: names; none means the default.
            wait: waits for room, as bulk work should, instead of being refused.

        Raises RecipeUnknown, QueueFull, Draining. When the caller is cancelled its images are dropped.
        """
        names = [self.recipe_name(name) for name in recipes or [""]]
        if self.draining.is_set():
            raise Draining("The server is stopping; ask another one, or this one in a while.")
        if not images:
            return []
        call = Call(asyncio.get_running_loop().create_future(), 0, bulk=wait)
        models = sorted({self._model_of[name] for name in names})
        rows = [[self._job(call, image, model) for model in models] for image in images]
        await self._travel(call, [job for row in rows for job in row])
        return [_joined([job.outcome for job in row], names) for row in rows]

    def _job(self, call: Call, source: Source, model: int) -> Job:
        sent = len(source) if isinstance(source, bytes) else source.nbytes
        size = self._device.models[model].preprocessing
        return Job(call, source, model, sent + size.height * size.width * 3)

    async def _travel(self, call: Call, jobs: list[Job]) -> None:
        size = sum(job.size for job in jobs)
        if call.bulk:
            await self.room.wait(len(jobs), size)
        elif not self.room.enter(len(jobs), size):
            raise self._full(len(jobs))
        call.pending = len(jobs)
        try:
            self._send(jobs)
            await call.done
        finally:
            call.left = True

    def _full(self, images: int) -> QueueFull:
        patience = min(max(images * self._seconds_per_image, 0.02), 5.0)
        return QueueFull(
            f"The queue is full ({self.room.images} images wait). Try again in {patience:.2f} s.",
            retry_after_ms=f"{patience * 1000:.0f}",
        )

    def _send(self, jobs: list[Job]) -> None:
        for job in jobs:
            _guard(job, self._sniff)
        self._arrived.put(job for job in jobs if job.outcome.error is None)
        self._finish([job for job in jobs if job.outcome.error is not None])

    def _sniff(self, job: Job) -> None:
        if isinstance(job.source, bytes):
            header = sniff(job.source, self._limits)
            job.outcome.width, job.outcome.height = header.width, header.height
            return
        job.outcome.height, job.outcome.width = job.source.shape[:2]
        if job.outcome.width * job.outcome.height > self._limits.max_pixels:
            raise PixelLimit(
                f"the image has {job.outcome.width} x {job.outcome.height} pixels; "
                f"at most {self._limits.max_pixels:,} are allowed"
            )

    def _decode_stage(self) -> None:
        while jobs := self._arrived.take_share(_DECODED_TOGETHER, len(self._decoders)):
            done, since = [], time.monotonic()
            for job in jobs:
                if not job.call.left:
                    _guard(job, self._decode)
                done.append(job)
                if time.monotonic() - since > _HELD_SECONDS:
                    self._hand_on(done)
                    done, since = [], time.monotonic()
            self._hand_on(done)

    def _hand_on(self, jobs: list[Job]) -> None:
        self._decoded.put(job for job in jobs if job.pixels is not None)
        self._post([job for job in jobs if job.pixels is None])

    def _decode(self, job: Job) -> None:
        started = time.monotonic()
        preprocessing = self._device.models[job.model].preprocessing
        if isinstance(job.source, bytes):
            job.pixels, sent = decode(job.source, preprocessing, self._limits), memoryview(job.source)
        else:
            job.pixels, sent = fit(job.source, preprocessing), np.ascontiguousarray(job.source).data
        job.outcome.digest = hashlib.sha256(sent).digest()
        job.ready_at = time.monotonic()
        job.outcome.decode_s = job.ready_at - started

    def _device_stage(self) -> None:
        try:
            self._device.warm_up()
        except BaseException as error:
            self._loop.call_soon_threadsafe(self._warm.set_exception, error)
            return
        self._loop.call_soon_threadsafe(self._warm.set_result, None)
        while jobs := self._decoded.take_batch(self._max_batch):
            staying = [job for job in jobs if not job.call.left]
            if staying:
                self._compute(staying)
            self._post(jobs)

    def _compute(self, jobs: list[Job]) -> None:
        started = time.monotonic()
        try:
            pixels = [job.pixels for job in jobs if job.pixels is not None]
            descriptors = self._device.run(jobs[0].model, pixels)
            _hand_out(descriptors, jobs)
        except BaseException as error:
            fault = internal(error)
            for job in jobs:
                job.outcome.error = fault
            if not self._device.usable():
                self._loop.call_soon_threadsafe(self.broken.set)
        elapsed = time.monotonic() - started
        self._seconds_per_image += 0.1 * (elapsed / len(jobs) - self._seconds_per_image)
        for job in jobs:
            job.outcome.queue_s, job.outcome.device_s = started - job.ready_at, elapsed

    def _post(self, jobs: list[Job]) -> None:
        if jobs:
            self._loop.call_soon_threadsafe(self._finish, jobs)

    def _finish(self, jobs: list[Job]) -> None:
        for job in jobs:
            self.room.leave(1, job.size)
            job.call.pending -= 1
            if not job.call.pending and not job.call.done.done():
                job.call.done.set_result(None)


def _guard(job: Job, step: Callable[[Job], None]) -> None:
    """Takes one job one step; whatever is raised becomes the fault of that job alone."""
    try:
        step(job)
    except LookalikeError as error:
        job.outcome.error = error
    except BaseException as error:
        job.outcome.error = internal(error)


def _hand_out(descriptors: Descriptors, jobs: Sequence[Job]) -> None:
    """Gives each job its row of each recipe; a row that is not finite is the fault of that job alone."""
    for recipe, rows in descriptors.items():
        if len(rows) != len(jobs):
            raise RuntimeError(f"the model answered {len(rows)} rows for {len(jobs)} images ({recipe})")
        for job, row in zip(jobs, rows, strict=True):
            job.outcome.descriptors[recipe] = row
            if not np.isfinite(row).all():
                job.outcome.error = InternalError(f"The model's answer is not finite ({recipe}).")


def _joined(outcomes: Sequence[Outcome], names: Sequence[str]) -> Outcome:
    """One outcome of an image that went through several models, with the descriptors that were asked for."""
    joined = outcomes[0]
    for other in outcomes[1:]:
        joined.error = joined.error or other.error
        joined.descriptors |= other.descriptors
        joined.decode_s += other.decode_s
        joined.queue_s = max(joined.queue_s, other.queue_s)
        joined.device_s += other.device_s
    joined.descriptors = {} if joined.error else {name: joined.descriptors[name] for name in names}
    return joined
