"""The decoders: threads that turn files into pixels, each image alone.

A decoder that hangs on an image is left behind with it: another thread takes its place and the rest of its
work. What the one left behind still finds out is not listened to.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from lookalike_extractor.errors import LookalikeError
from lookalike_extractor.images import ImageLimits, decode
from lookalike_extractor.preprocessing import fit

from lookalike_server.batcher import Line
from lookalike_server.cache import ResultCache
from lookalike_server.gpu_stage import GpuStage
from lookalike_server.jobs import Job
from lookalike_server.supervised import Decoder, Stage
from lookalike_server.wire import internal

if TYPE_CHECKING:
    from lookalike_server.gpu_decoding import GpuDecoder
    from lookalike_server.served import Model

# A decoder takes, and hands on together, as many as it decodes in this time: handing small images from thread
# to thread one at a time costs more than decoding them, and a device that is handed few makes small batches.
# Longer would keep interactive images behind bulk. Large ones are handed on as they come.
_TOGETHER_SECONDS, _MOST_TOGETHER = 0.02, 32

_DECODE_WEIGHT = 0.05


class Decoding:
    """The decoders, and the line before them.

    Args:
        ready: takes images that have pixels.
        ended: takes images that need none: known, dropped, failed.
        failed: is told of a decoder that was thrown out of its work.
        gpu: decodes what it can take; None: the threads decode all.

    Attributes:
        seconds: of an image, lately.
    """

    def __init__(
        self,
        cache: ResultCache,
        limits: ImageLimits,
        threads: int,
        *,
        ready: Callable[[list[Job]], object],
        ended: Callable[[list[Job]], object],
        failed: Callable[[Stage, BaseException], None],
        gpu: GpuDecoder | None = None,
    ) -> None:
        self.line = Line()
        self.seconds = 0.0
        self._cache, self._limits = cache, limits
        self._ready, self._ended, self._failed = ready, ended, failed
        self._decoders = [self._decoder(i) for i in range(threads)]
        self._left: list[Decoder] = []
        self._gpu = self._gpu_stage(gpu) if gpu else None

    def __len__(self) -> int:
        return len(self._decoders)

    def start(self) -> None:
        for decoder in self._decoders:
            decoder.start()
        if self._gpu:
            self._gpu.start()

    def join(self, seconds: float | None) -> None:
        """Ends the threads once what is in the line is decoded, or the time has passed."""
        self.line.close()
        for decoder in self._decoders:
            decoder.join(seconds)
        if self._gpu:
            self._gpu.join(seconds)
            last = self._decoder(0)  # for what the GPU has given back since
            last.start()
            last.join(seconds)

    def waiting(self, *, bulk: bool) -> int:
        """Images that wait to be decoded."""
        return self.line.waiting(bulk=bulk) + (self._gpu.line.waiting(bulk=bulk) if self._gpu else 0)

    def by_model(self, *, bulk: bool) -> dict[Model, int]:
        """How many jobs of each model the decoders have in hand, and the GPU's one before it."""
        hands = [job for decoder in self._decoders for job in tuple(decoder.hand)]
        hands += self._gpu.jobs() if self._gpu else []
        return Counter(job.model for job in hands if job.call.bulk == bulk)

    def replace_hanging(self, seconds: float) -> dict[str, Job]:
        """Puts another decoder in the place of each that has been at one image for so long.

        Returns those images by the names of their decoders.
        """
        hanging: dict[str, Job] = {}
        if self._gpu:
            self._gpu.leave_hanging(seconds)
        for place, decoder in enumerate(self._decoders):
            if (taken := decoder.leave(seconds)) is None:
                continue
            hanging[decoder.name], ready, rest = taken
            self._left.append(decoder)
            self._decoders[place] = self._decoder(place)
            self._decoders[place].start()
            self._hand_on(ready)
            self.line.put(rest)
        return hanging

    def left_behind(self) -> int:
        """Threads that hang still."""
        self._left = [decoder for decoder in self._left if decoder.alive()]
        return len(self._left)

    def _decoder(self, place: int) -> Decoder:
        return Decoder(f"decode-{place}", self._turn, self._failed)

    def _gpu_stage(self, gpu: GpuDecoder) -> GpuStage:
        return GpuStage(
            gpu,
            ready=self._ready,
            ended=self._ended,
            back=self.line.put,
            failed=self._failed,
            learn=self._learn_gpu,
        )

    def _turn(self, decoder: Stage) -> bool:
        assert isinstance(decoder, Decoder)
        jobs = self.line.take_share(self._together(), len(self._decoders))
        if jobs is None:
            return False
        ready: list[Job] = []
        decoder.hand, since = list(jobs), time.monotonic()
        for number, job in enumerate(jobs, 1):
            decoder.begin(job, ready, jobs[number:])
            done = self._prepared(job)
            if not decoder.end():
                decoder.hand = []
                return False
            if done:
                ready.append(job)
            if time.monotonic() - since > _TOGETHER_SECONDS or number == len(jobs):
                self._hand_on(ready)
                decoder.hand, ready, since = jobs[number:], [], time.monotonic()
        return True

    def _together(self) -> int:
        if not self.seconds:
            return 1
        return max(1, min(_MOST_TOGETHER, int(_TOGETHER_SECONDS / self.seconds)))

    def _hand_on(self, jobs: list[Job]) -> None:
        self._ready([job for job in jobs if job.pixels is not None])
        ended = [job for job in jobs if job.pixels is None]
        if ended:
            self._ended(ended)

    def _prepared(self, job: Job) -> bool:
        """Decodes a job unless there is no need. False when it follows another, which will bring it along, or
        is with the GPU.

        Whatever is raised becomes the fault of that job alone.
        """
        try:
            return self._prepare(job)
        except LookalikeError as error:
            job.outcome.error = error
        except BaseException as error:
            job.outcome.error = internal(error)
        return True

    def _prepare(self, job: Job) -> bool:
        started = time.monotonic()
        if job.call.gone(started):
            job.outcome.origin = "dropped"
            return True
        file = job.source if isinstance(job.source, bytes) else None
        sent = np.ascontiguousarray(job.source).data if file is None else file
        job.digest = hashlib.sha256(sent).digest()
        origin = (
            self._cache.meet(job) if job.key is None else "computed"
        )  # it has met, and the GPU sent it back
        if origin != "computed":
            return origin == "cached"
        if self._gpu and self._gpu.takes(job):
            job.outcome.decode_s += time.monotonic() - started
            self._gpu.send(job)
            return False
        preprocessing = job.model.preprocessing
        if job.call.probe:  # canaries have no face
            preprocessing = preprocessing.unaligned()
        if file is None:
            job.pixels = fit(np.asarray(job.source), preprocessing)
        else:
            job.pixels = decode(file, preprocessing, self._limits, header=job.header)
        job.ready_at = time.monotonic()
        job.outcome.decode_s += job.ready_at - started
        self._learn(job.ready_at - started)
        return True

    def _learn(self, seconds: float) -> None:
        weight = _DECODE_WEIGHT if self.seconds else 1.0
        self.seconds += weight * (seconds - self.seconds)

    def _learn_gpu(self, seconds: float) -> None:
        self._learn(seconds * len(self._decoders))  # it is one, and what is learned is of a thread of theirs
