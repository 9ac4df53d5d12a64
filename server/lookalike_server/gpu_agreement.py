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

from PIL import Image

from lookalike_server.jobs import Call, Job
from lookalike_server.runtimes import pictures

if TYPE_CHECKING:
    from lookalike_extractor.preprocessing import Preprocessing

    from lookalike_server.served import Model

# What decoding at half the size or less, which is part of every embedding space, may cost by its own margin
# (Preprocessing.jpeg_margin); one more encoding at quality 75 costs more.
LEAST_COSINE = 0.998

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
    least = min(
        float(one.outcome.descriptors[name] @ other.outcome.descriptors[name])
        for one, other in zip(here, there, strict=True)
        for name in model.spaces
    )
    model.gpu_decode = least >= LEAST_COSINE
    if not model.gpu_decode:
        _log.warning(
            "JPEGs for %s are decoded on the CPU: those that the GPU decodes get other descriptors "
            "(cosine %.4f, at least %g is asked for)",
            model.group,
            least,
            LEAST_COSINE,
        )


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
