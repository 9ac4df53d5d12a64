"""The thread that decodes on a GPU, beside those that decode on the CPU, which send it what it takes.

There is no timer: while it is busy its line grows the next batch. What it cannot decode goes back to the line
of the others, whatever the reason: they say what is wrong with an image. One that hangs is left behind, and a
GPU that refuses all work is given up; the others then decode everything.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lookalike_server.batcher import Line
from lookalike_server.errors import InternalError
from lookalike_server.gpu_decoding import takes
from lookalike_server.jobs import Job
from lookalike_server.supervised import Decoder, Stage

if TYPE_CHECKING:
    from lookalike_extractor.formats.layout import Layout

    from lookalike_server.gpu_decoding import GpuDecoder

MOST_TOGETHER = 64
_HANGING_JOIN_SECONDS = 1.0

_log = logging.getLogger(__name__)


class GpuStage:
    """Args:
        ready: takes images that have pixels.
        ended: takes images that need none.
        back: takes images that the CPU must decode.
        failed: is told when the thread was thrown out of its work.
        learn: is told the seconds of an image, its share of its batch.

    Attributes:
        line: before it.
    """

    def __init__(
        self,
        decoder: GpuDecoder,
        *,
        ready: Callable[[list[Job]], object],
        ended: Callable[[list[Job]], object],
        back: Callable[[list[Job]], object],
        failed: Callable[[Stage, BaseException], None],
        learn: Callable[[float], object],
    ) -> None:
        self.line = Line()
        self._off = False
        self._decoder, self._learn = decoder, learn
        self._ready, self._ended, self._back = ready, ended, back
        self._stage = Decoder("decode-gpu", self._turn, failed)

    def start(self) -> None:
        self._stage.start()

    def join(self, seconds: float | None) -> None:
        """Ends the thread once what is in its line is decoded, or the time has passed."""
        self.line.close()
        self._stage.join(_HANGING_JOIN_SECONDS if self._off else seconds)

    def takes(self, job: Job) -> bool:
        if self._off or job.on_gpu is not None:
            return bool(job.on_gpu)
        layout = job.header.layout if job.header else None
        return (
            job.model.gpu_decode
            and isinstance(job.source, bytes)
            and layout is not None
            and takes(job.source, layout, job.model.preprocessing)
        )

    def send(self, job: Job) -> None:
        self.line.put([job])
        if self._off:  # since it was asked whether it takes it
            self._give_back(self.line.clear())

    def jobs(self) -> list[Job]:
        """What it has in hand."""
        return list(self._stage.hand)

    def leave_hanging(self, seconds: float) -> None:
        """Leaves its thread behind if that has been at one batch for so long, and works no more."""
        taken = self._stage.leave(seconds)
        if taken is None or self._off:
            return
        first, _, rest = taken
        self._give_up(f"was silent for {seconds:g} s", [first, *rest])

    def _turn(self, stage: Stage) -> bool:
        assert isinstance(stage, Decoder)
        taken = self.line.take_share(MOST_TOGETHER, 1)
        if taken is None:
            return False
        stage.hand, started = list(taken), time.monotonic()
        jobs = [job for job in taken if not self._dropped(job, started)]
        if jobs:
            stage.begin(jobs[0], [], jobs[1:])
            found = self._decoder.decode(*_files(jobs), jobs[0].model.preprocessing)
            if not stage.end():
                stage.hand = []
                return False
            seconds = time.monotonic() - started
            for job, pixels in zip(jobs, found, strict=True):
                job.pixels = pixels
                job.ready_at = started + seconds
            self._hand_on(jobs, seconds)
        stage.hand = []
        return True

    def _dropped(self, job: Job, now: float) -> bool:
        if job.wanted(now):
            return False
        job.outcome.origin = "dropped"
        self._ended([job])
        return True

    def _hand_on(self, jobs: list[Job], seconds: float) -> None:
        decoded = [job for job in jobs if job.pixels is not None]
        for job in decoded:
            job.outcome.decode_s += seconds
            self._learn(seconds / len(jobs))
        if decoded:
            self._ready(decoded)
        left = [job for job in jobs if job.pixels is None]
        if left and not self._decoder.usable():
            self._give_up("refuses all further work", left)
        else:
            self._give_back(left)

    def _give_up(self, why: str, jobs: list[Job]) -> None:
        self._off = True
        _log.error("%s, which decodes JPEGs, %s; the CPU decodes them from now on", self._decoder.device, why)
        self._give_back([*jobs, *self.line.clear()])

    def _give_back(self, jobs: list[Job]) -> None:
        """To the CPU; but what was to be tried here and nowhere else has failed."""
        for job in jobs:
            if job.on_gpu:
                job.outcome.error = InternalError(f"{self._decoder.device} does not decode it.")
            job.on_gpu = False
        tried = [job for job in jobs if job.outcome.error is not None]
        if tried:
            self._ended(tried)
        self._back([job for job in jobs if job.outcome.error is None])


def _files(jobs: list[Job]) -> tuple[list[bytes], list[Layout]]:
    """Of jobs that `GpuStage.takes`."""
    files = [job.source for job in jobs if isinstance(job.source, bytes)]
    return files, [job.header.layout for job in jobs if job.header and job.header.layout]
