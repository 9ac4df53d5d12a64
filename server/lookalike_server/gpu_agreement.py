"""Whether a model gives JPEGs that a GPU has decoded the descriptors of those that the CPU has.

Decoders differ in how they round and how they enlarge colours. A few pictures go the whole road both ways,
before callers' images do.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lookalike_server.jobs import Call, Job
from lookalike_server.runtimes import pictures

if TYPE_CHECKING:
    from lookalike_extractor.preprocessing import Preprocessing

    from lookalike_server.served import Model

# Of each of the pictures. With the built-in recipes cosines are 0.9999 for libjpeg with another resize,
# 0.9965 for a decoder that repeats colours instead of interpolating them, as nvJPEG is expected to, 0.970 for
# one more encoding at quality 75, 0.968 for red and blue exchanged, and 0.88 without antialiasing.
LEAST_COSINE = 0.995
# Where a recipe gives all pictures much the same descriptor, cosines say little: pixels are compared too, by
# how far they are apart on average. Colours that are repeated make 2.5 levels, a shift by one pixel 23.
MOST_LEVELS = 5.0

# Colours stored at half the size each way, as photos have them, in width alone, and whole; in one scan and in
# several.
_KINDS: tuple[dict[str, object], ...] = (
    {"quality": 90, "subsampling": "4:2:0"},
    {"quality": 75, "subsampling": "4:2:0", "progressive": True},
    {"quality": 90, "subsampling": "4:2:2"},
    {"quality": 95, "subsampling": "4:4:4"},
)
_LARGER = 1.5
_ORIENTATION, _TURNED = 0x0112, 6

_log = logging.getLogger(__name__)


async def settle_gpu_decode(
    model: Model, replica: int, travel: Callable[[Call, Sequence[Job]], Awaitable[None]]
) -> None:
    """Lets a GPU decode for a model with which it agrees, and logs with which it does not.

    Args:
        travel: takes a call's jobs through the engine and returns once they have ended.
    """
    if model.preprocessing.align is not None:
        return  # nothing is decoded on a GPU for it
    files = await asyncio.to_thread(_files, model.preprocessing)
    here, there = [await _described(model, replica, files, travel, on_gpu=way) for way in (False, True)]
    fault = next((job.outcome.error for job in here + there if job.outcome.error is not None), None)
    if fault is not None:
        _log.warning("JPEGs for %s are decoded on the CPU: %s", model.group, fault.message)
        return
    least, levels = _compared(here, there)
    model.gpu_decode = least >= LEAST_COSINE and levels <= MOST_LEVELS
    _log.log(
        logging.INFO if model.gpu_decode else logging.WARNING,
        "JPEGs for %s are decoded on the %s: to those that the CPU decodes the GPU's have a cosine of %.4f "
        "(at least %g is asked for), their pixels are %.1f levels away (at most %g)",
        model.group,
        "GPU" if model.gpu_decode else "CPU",
        least,
        LEAST_COSINE,
        levels,
        MOST_LEVELS,
    )


def _compared(here: Sequence[Job], there: Sequence[Job]) -> tuple[float, float]:
    """The least cosine, and the most levels between pixels, of images that went both ways."""
    cosines, levels = [], []
    for one, other in zip(here, there, strict=True):
        assert one.pixels is not None  # both have descriptors
        assert other.pixels is not None
        found, expected = other.outcome.descriptors, one.outcome.descriptors
        cosines += [float(found[name] @ expected[name]) for name in expected]
        levels.append(float(np.abs(other.pixels.astype(np.int16) - one.pixels).mean()))
    return min(cosines), max(levels)


async def _described(
    model: Model,
    replica: int,
    files: Sequence[bytes],
    travel: Callable[[Call, Sequence[Job]], Awaitable[None]],
    *,
    on_gpu: bool,
) -> list[Job]:
    call = Call(asyncio.get_running_loop().create_future(), 0, bulk=False, client="canary", probe=True)
    jobs = [Job.of(call, file, model) for file in files]
    for job in jobs:
        job.on_gpu, job.replica = on_gpu, replica
    await travel(call, jobs)
    return jobs


def _files(preprocessing: Preprocessing) -> list[bytes]:
    """JPEGs that are decoded whole for this input size."""
    larger = replace(
        preprocessing,
        height=min(4096, round(preprocessing.height * _LARGER)),
        width=min(4096, round(preprocessing.width * _LARGER)),
    )
    planes = pictures(larger, len(_KINDS)).permute(0, 2, 3, 1).contiguous().numpy()
    images = [Image.fromarray(picture) for picture in planes]
    exif = Image.Exif()
    exif[_ORIENTATION] = _TURNED
    return [
        *(_jpeg(image, **kind) for image, kind in zip(images, _KINDS, strict=True)),
        _jpeg(images[0].convert("L"), quality=90),
        _jpeg(images[0], quality=90, exif=exif),
    ]


def _jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()
