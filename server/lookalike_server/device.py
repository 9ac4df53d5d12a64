"""The device: pixels in, descriptors out. It knows neither messages nor callers.

A Device is used by one thread at a time: the one of its replica.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lookalike_server.errors import ConfigInvalid

if TYPE_CHECKING:
    from lookalike_extractor.descriptor import DescriptorModel

    from lookalike_server.served import InFlight

Pixels = NDArray[np.uint8]
Descriptors = dict[str, NDArray[np.float32]]

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_GIB, _MIB = 1 << 30, 1 << 20

# Batches from which the cost of a model is first learned.
_TRIED_SIZES, _TRIED_SIZES_GPU = (2, 8, 2, 8, 16, 16), (2, 8, 2, 8, 32, 32)
# Four of them are tried however long it takes, and further ones until it has taken so long.
_LEAST_TRIED, _MOST_TRIAL_SECONDS = 4, 2.0
# Full batches that must go well before a size that was cut for want of memory grows.
_SUCCESSES_TO_GROW = 64


def tune_allocator() -> None:
    """Makes glibc keep large blocks instead of giving them back to the system after each use.

    A forward pass allocates and frees blocks of many MiB, which glibc maps and unmaps each time: the page
    faults cost more than half of the time of a small network on a CPU. One arena, because only the first one
    can hold blocks of that size. Other C libraries have no mallopt and are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_TRIM_THRESHOLD, _GIB)
    # Older glibc takes no mmap threshold over 32 MiB and says so.
    _ = mallopt(_M_MMAP_THRESHOLD, _GIB) or mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)


def cores() -> int:
    """The cores this process may use: its affinity, or its control group's quota when that is less."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, round(int(quota) / int(period))))


class Threads(NamedTuple):
    """Attributes:
    torch: of each replica's model.
    """

    torch: int
    decode: int


def threads(device: str, replicas: int = 1) -> Threads:
    """How the cores are shared: a model on the CPU takes nearly all of the time, one on a GPU next to none.

    Two cores or fewer are not divided: decoding is a tenth of the work, and takes its turn. A model on the
    CPU has two threads at least: oneDNN's kernels for one thread give small batches other last bits.
    """
    count = cores()
    if device != "cpu":
        return Threads(torch=1, decode=count)
    decode = count if count <= 2 else max(1, count // 4)
    model = count if count <= 2 else count - decode
    return Threads(torch=max(2, model // replicas), decode=decode)


def set_threads(count: int) -> None:
    """Sets the threads of torch's operations. Call it in the main thread, once, before the engine starts.

    Called in another thread it would reset every thread that has not yet run a parallel operation.
    """
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def device_name(wish: str) -> str:
    """Turns "auto" into the first GPU, or "cpu". Raises ConfigInvalid when the wished device is not there."""
    available = torch.cuda.device_count()
    if wish == "auto":
        return "cuda:0" if available else "cpu"
    if wish == "cpu":
        return wish
    index = int(wish.partition(":")[2] or 0)
    if index >= available:
        raise ConfigInvalid(f"device: {wish!r} is not there; torch sees {available} CUDA devices. Use 'cpu'.")
    return f"cuda:{index}"


def device_names(wish: str) -> list[str]:
    """The devices of a wish as "cuda:0,cuda:1". Raises ConfigInvalid when one is missing or named twice."""
    names = [device_name(part.strip()) for part in wish.split(",")]
    if len(set(names)) < len(names):
        raise ConfigInvalid(f"device: {wish!r} names one device twice; `replicas` puts more models on each.")
    return names


class Device:
    """Runs models that share one device. One of its own for GPUs is in cuda.py.

    Args:
        models: in the order of their index in `run`.
        name: "cpu" or "cuda:N".
        runtimes: what each model runs in; all "eager" when left out.

    Attributes:
        at_once: how many batches may be begun before the first one's result is asked for.
    """

    at_once = 1

    def __init__(
        self, models: Sequence[DescriptorModel], name: str = "cpu", runtimes: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.models = [model.to(name).eval() for model in models]
        self.runtimes = list(runtimes) or ["eager"] * len(models)
        self._safe = [_SafeSize() for _ in models]

    def warm_up(self) -> list[list[tuple[int, float]]]:
        """Runs each model: this thread's pool of workers and the kernels are made at first use.

        Returns for each model some sizes of batches and the seconds they took, the least of each size.
        """
        torch.get_num_threads()  # oneDNN keeps to what was set only in threads that have asked
        return [self._tried(index) for index in range(len(self.models))]

    def _tried(self, index: int) -> list[tuple[int, float]]:
        size = self.models[index].preprocessing
        image = np.zeros((size.height, size.width, 3), np.uint8)
        self.run(index, [image] * 2)
        timed: list[tuple[int, float]] = []
        for n in _TRIED_SIZES if self.name == "cpu" else _TRIED_SIZES_GPU:
            if len(timed) >= _LEAST_TRIED and sum(seconds for _, seconds in timed) > _MOST_TRIAL_SECONDS:
                break
            started = time.monotonic()
            self.run(index, [image] * n)
            timed.append((n, time.monotonic() - started))
        least = {n: min(seconds for m, seconds in timed if m == n) for n, _ in timed}
        return [(n, least[n]) for n, _ in timed]

    def usable(self) -> bool:
        """Whether it still answers. After some faults a GPU refuses all further work of the process."""
        try:
            torch.zeros(1, device=self.name).add(1).item()
        except Exception:
            return False
        return True

    def give_up(self) -> None:
        """What hangs in a thread of this process cannot be ended."""

    def begin(self, model: int, pixels: Sequence[Pixels]) -> InFlight:
        """Begins with a batch, as `run`, whose result is asked for later; here it is computed at once."""
        return Finished(self.run(model, pixels))

    def run(self, model: int, pixels: Sequence[Pixels]) -> Descriptors:
        """Returns float32 [n, d] by recipe, of n images uint8 [h, w, 3] of the model's input size.

        When memory runs out the batch is halved and each half tried again. The size that went well is kept
        to, and grows again slowly.
        """
        safe = self._safe[model]
        if len(pixels) > safe.most:
            return self._in_parts(model, pixels, safe.most)
        try:
            descriptors = self._forward(model, pixels)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if len(pixels) == 1 or not out_of_memory(error):
                raise
        else:
            safe.went_well(len(pixels))
            return descriptors
        if self.name != "cpu":
            torch.cuda.empty_cache()
        safe.most = -(-len(pixels) // 2)
        return self._in_parts(model, pixels, safe.most)

    def _in_parts(self, model: int, pixels: Sequence[Pixels], most: int) -> Descriptors:
        parts = [self.run(model, pixels[at : at + most]) for at in range(0, len(pixels), most)]
        return {recipe: np.concatenate([part[recipe] for part in parts]) for recipe in parts[0]}

    def _forward(self, model: int, pixels: Sequence[Pixels]) -> Descriptors:
        stacked = torch.from_numpy(np.stack(pixels)).to(self.name)
        with torch.inference_mode():
            descriptors: dict[str, Any] = self.models[model](stacked.permute(0, 3, 1, 2))
        return {recipe: rows.cpu().numpy() for recipe, rows in descriptors.items()}


@dataclass(slots=True)
class Finished:
    """A batch whose descriptors are there."""

    descriptors: Descriptors
    late: float = 0.0

    def done(self) -> bool:
        return True

    def result(self) -> Descriptors:
        return self.descriptors


class _SafeSize:
    """The largest batch that is known to fit into memory."""

    def __init__(self) -> None:
        self.most = sys.maxsize
        self._successes = 0

    def went_well(self, size: int) -> None:
        if size < self.most:
            return
        self._successes += 1
        if self._successes >= _SUCCESSES_TO_GROW:
            self.most, self._successes = self.most + max(1, self.most // 8), 0


def out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
