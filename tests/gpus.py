"""A GPU made by hand: work that is given to it is done later, in order, by threads."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from lookalike_server.cuda import CudaDevice
from serving import TinyModel
from torch import Tensor


class HandMark:
    """Behind some work; it is reached when that is done, or has failed."""

    def __init__(self) -> None:
        self.reached, self.error, self.at = threading.Event(), None, 0.0

    def query(self) -> bool:
        if self.error is not None:
            raise self.error
        return self.reached.is_set()

    def synchronize(self) -> None:
        assert self.reached.wait(20), "nobody let the device go on"
        self.query()


class Stream:
    """One line of work. `go` holds it up while it is not set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self._work: queue.Queue[tuple[Callable[[], None], HandMark]] = queue.Queue()
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, work: Callable[[], None]) -> HandMark:
        mark = HandMark()
        self._work.put((work, mark))
        return mark

    def _run(self) -> None:
        while True:
            work, mark = self._work.get()
            self.go.wait()
            try:
                work()
            except Exception as error:
                mark.error = error
            mark.at = time.monotonic()
            mark.reached.set()


class HandStreams:
    """Those of a GPU (cuda.Streams).

    Attributes:
        seconds: that each batch takes to compute.
        refusals: so many times it has no memory for a batch.
        cramped: it has none for a batch beside another.
        fault: what happens to batches while it is set.
        spans: from when to when it has computed each batch.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.copying, self.computing = Stream(), Stream()
        self.seconds, self.refusals, self.cramped, self.fault = seconds, 0, False, ""
        self.spans: list[tuple[float, float]] = []
        self._copied: HandMark | None = None
        self._computed: HandMark | None = None

    def pinned(self, *shape: int, dtype: torch.dtype = torch.uint8) -> Tensor:
        return torch.full(shape, 77, dtype=dtype)

    def memory(self, size: int) -> Tensor:
        return torch.full((size,), 99, dtype=torch.uint8)

    def copy(self, source: Tensor, target: Tensor) -> HandMark:
        self._copied = self.copying.add(lambda: _copy(source, target))
        return self._copied

    def compute(self, work: Callable[[], None]) -> HandMark:
        beside = self._computed is not None and not self._computed.reached.is_set()
        if self.refusals or (self.cramped and beside):
            self.refusals = max(0, self.refusals - 1)
            raise torch.OutOfMemoryError("CUDA out of memory")
        copied = self._copied
        self._computed = self.computing.add(lambda: self._compute(work, copied))
        return self._computed

    def since(self, mark: HandMark) -> float:
        return time.monotonic() - mark.at

    def _compute(self, work: Callable[[], None], copied: HandMark | None) -> None:
        if copied is not None:
            copied.synchronize()
        started = time.monotonic()
        time.sleep(self.seconds)
        if self.fault:
            raise RuntimeError(self.fault)
        work()
        self.spans.append((started, time.monotonic()))


def _copy(source: Tensor, target: Tensor) -> None:
    target.copy_(source)


class HandGpu(CudaDevice):
    """Models on such a GPU.

    Attributes:
        begun: images of each batch that was begun.
        begin_seconds: what it takes to begin with one.
    """

    def __init__(self, *models: TinyModel, seconds: float = 0.0, begin_seconds: float = 0.0) -> None:
        self.streams = HandStreams(seconds)
        super().__init__(models or [TinyModel()], "cpu", streams=self.streams)  # type: ignore[arg-type]
        self.begun: list[int] = []
        self.begin_seconds, self.lost = begin_seconds, False

    def begin(self, model: int, pixels: Sequence[Any]) -> Any:
        self.begun.append(len(pixels))
        time.sleep(self.begin_seconds)
        return super().begin(model, pixels)

    def warm_up(self) -> list[list[tuple[int, float]]]:
        each = [(n, self.streams.seconds) for n in (1, 2, 8, 16)]
        return [each if self.streams.seconds else [] for _ in self.models]

    def usable(self) -> bool:
        return not self.lost


def pixels(count: int, seed: int = 0) -> list[np.ndarray]:
    """Of the size that TinyModel takes."""
    return list(np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), np.uint8))
