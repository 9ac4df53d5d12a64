"""What a model runs in: chosen at the start by a short measured trial, each held against eager float32.

A runtime is taken only if it gives each image the same descriptor whatever it is batched with, bit for bit,
and if that is eager float32's to within a cosine of 0.999; so an embedding space does not change with it.
What is asked for by name is taken whatever its speed, and even if the last bits depend on the batch.

"compile" makes code for all sizes of batches, of which some share one: all are run here, because making more
of it takes a minute. "graphs" is eager torch, recorded for some sizes (captured.py), on a GPU.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from lookalike_extractor.agreement import Precision
from lookalike_extractor.errors import LookalikeError
from lookalike_extractor.optimization import Runtime, available_runtimes, has_bf16, optimize
from lookalike_extractor.preprocessing import Preprocessing
from torch import Tensor

from lookalike_server.captured import Captured, sizes
from lookalike_server.errors import ConfigInvalid

if TYPE_CHECKING:
    from lookalike_extractor.descriptor import DescriptorModel

LEAST_COSINE = 0.999
# A runtime must be that much faster than eager to be worth another one.
_LEAST_GAIN = 1.1
_IMAGES = 8
_REPEATS = 3
# That a conversion is held against eager on, before the trial.
_EXAMPLES = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """A model in one runtime, and how it did.

    Attributes:
        seconds: of a batch of 8.
        cosine: the least of any descriptor with that of eager float32.
        steady: whether descriptors are the same in batches of all sizes, bit for bit.
    """

    runtime: str
    model: DescriptorModel
    seconds: float
    cosine: float
    steady: bool

    def __str__(self) -> str:
        steady = "" if self.steady else ", not the same in every batch"
        return f"{self.runtime} {_IMAGES / self.seconds:.0f} images/s, cosine {self.cosine:.6f}{steady}"


def choose(models: Sequence[DescriptorModel], wish: str, device: str, most: int = 32) -> list[Trial]:
    """Returns each model in the runtime that was wished for, or for "auto" in the fastest that is right.

    Takes seconds for each runtime tried. Raises ConfigInvalid when a wish cannot be fulfilled.

    Args:
        most: images of the largest batch to come.
    """
    return [_chosen(model.to(device).eval(), wish, device, most) for model in models]


def _chosen(model: DescriptorModel, wish: str, device: str, most: int) -> Trial:
    if wish == "eager":
        return Trial("eager", model, 1.0, 1.0, steady=True)
    pixels = pictures(model.preprocessing, _IMAGES).to(device)
    _described(model, pixels)  # the first time takes longer
    eager = Trial("eager", model, _seconds(model, pixels), 1.0, steady=True)
    if wish != "auto":
        return _wished(eager, wish, pixels, most)
    trials = [eager, *(trial for name in _candidates(device) if (trial := _attempt(eager, name, pixels)))]
    right = [trial for trial in trials[1:] if trial.steady and trial.cosine >= LEAST_COSINE]
    best = min(right, key=lambda trial: trial.seconds, default=eager)
    chosen = best if best.seconds * _LEAST_GAIN < eager.seconds else eager
    tried = "; ".join(map(str, trials))
    _log.info("%s runs in %s (tried: %s)", ", ".join(model.spaces), chosen.runtime, tried)
    return chosen


def _candidates(device: str) -> list[str]:
    """Those that are ready in seconds: compiling takes a minute, and has to be asked for."""
    runtimes = ["eager", "openvino"] if not available_runtimes(device)["openvino"] else ["eager"]
    faster = [f"{runtime}-bf16" for runtime in runtimes] if has_bf16(torch.device(device)) else []
    return [*runtimes[1:], *faster]


def _attempt(eager: Trial, name: str, pixels: Tensor) -> Trial | None:
    try:
        return _in_runtime(eager, name, pixels)
    except (LookalikeError, RuntimeError) as error:
        _log.warning("%s is not used: %s", name, error)
        return None


def _wished(eager: Trial, name: str, pixels: Tensor, most: int) -> Trial:
    if name.startswith("graphs"):
        return _recorded(eager, name, pixels, most)
    try:
        trial = _in_runtime(eager, name, pixels)
    except LookalikeError as error:
        raise ConfigInvalid(f"runtime: {error.message}") from error
    return _checked(trial, eager, pixels, most)


def _recorded(eager: Trial, name: str, pixels: Tensor, most: int) -> Trial:
    if pixels.device.type != "cuda":
        raise ConfigInvalid(f"runtime: {name!r} is for GPUs. Use 'auto'.")
    base = eager if name == "graphs" else _wished(eager, name.replace("graphs", "eager"), pixels, most)
    try:
        captured = cast("DescriptorModel", Captured(base.model, most))
    except RuntimeError as error:
        raise ConfigInvalid(f"runtime: {name!r} cannot be recorded: {error}. Use 'auto'.") from error
    name, expected = base.runtime.replace("eager", "graphs"), _described(eager.model, pixels)
    return _checked(_tried(name, captured, pixels, expected), eager, pixels, most)


def _checked(trial: Trial, eager: Trial, pixels: Tensor, most: int) -> Trial:
    if trial.cosine < LEAST_COSINE:
        raise ConfigInvalid(f"runtime: {trial} of eager; at least {LEAST_COSINE} is needed. Use 'eager'.")
    for n in sizes(most) if trial.runtime.startswith("compile") else ():
        _described(trial.model, pixels.new_zeros(n, *pixels.shape[1:]))
    _log.info("%s runs in %s", ", ".join(eager.model.spaces), trial)
    return trial


def _in_runtime(eager: Trial, name: str, pixels: Tensor) -> Trial:
    runtime, _, precision = name.partition("-")
    normalised = pixels[:_EXAMPLES].to(eager.model.scale.dtype) * eager.model.scale + eager.model.shift
    optimized = optimize(
        eager.model.extractor,
        normalised.contiguous(memory_format=torch.channels_last),
        for_device=pixels.device,
        runtime=cast(Runtime, runtime),
        precision=cast(Precision, precision or "fp32"),
    )
    model = copy.copy(eager.model)
    model._modules = eager.model._modules | {"extractor": optimized.module}
    suffix = f"-{optimized.precision}" if optimized.precision != "fp32" else ""
    name, expected = f"{optimized.runtime}{suffix}", _described(eager.model, pixels)
    # Where one image by itself has the same bits, it takes half the time of two.
    for model.pads_one in (False, True):
        trial = _tried(name, model, pixels, expected)
        if trial.steady:
            break
    return trial


def _tried(name: str, model: DescriptorModel, pixels: Tensor, expected: Sequence[Tensor]) -> Trial:
    whole = _described(model, pixels)
    parts = [slice(n) for n in range(2, len(pixels))] + [slice(n, n + 1) for n in range(len(pixels))]
    steady = all(
        torch.equal(some, rows[part])
        for part in parts
        for some, rows in zip(_described(model, pixels[part]), whole, strict=True)
    )
    seconds = min(_seconds(model, pixels) for _ in range(_REPEATS))
    cosine = min(float((a * b).sum(1).nan_to_num(0).min()) for a, b in zip(whole, expected, strict=True))
    return Trial(name, model, seconds, cosine, steady)


def _described(model: DescriptorModel, pixels: Tensor) -> list[Tensor]:
    """float32 [n, d] of each recipe, rows of length 1."""
    with torch.inference_mode():
        return [rows.cpu() for rows in model(pixels).values()]


def _seconds(model: DescriptorModel, pixels: Tensor) -> float:
    started = time.monotonic()
    _described(model, pixels)
    return time.monotonic() - started


def pictures(preprocessing: Preprocessing, count: int) -> Tensor:
    """Images with the spectrum of photos, amplitudes falling as 1/f, uint8 [count, 3, h, w]; always the same.

    Source: Field, "Relations between the statistics of natural images and the response properties of cortical
    cells", 1987.
    """
    random = np.random.default_rng(20)
    height, width = preprocessing.height, preprocessing.width
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1.0
    noise = np.fft.rfft2(random.standard_normal((count, 3, height, width)))
    noise += 2 * noise.mean(1, keepdims=True)  # colours of one place are alike
    planes = np.fft.irfft2(noise / frequency, s=(height, width))
    planes = (planes - planes.mean((2, 3), keepdims=True)) / planes.std((2, 3), keepdims=True)
    return torch.from_numpy(np.clip(128 + 55 * planes, 0, 255).astype(np.uint8))
