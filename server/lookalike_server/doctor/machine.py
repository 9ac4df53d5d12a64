"""What the machine and the packages can do."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path

from lookalike_extractor.errors import LookalikeError

from lookalike_server.config import Settings
from lookalike_server.doctor.findings import Doubt

_GIB = 1 << 30
_LEAST_MEMORY = 2 * _GIB


def versions(settings: Settings) -> str:
    names = ("lookalike", "torch", "torchvision", "grpcio", "protobuf", "numpy", "faiss-cpu")
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in names)])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"


def torchvision_fits(settings: Settings) -> str:
    """Its compiled operations load only into the torch that they were made for."""
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)
    if kept.tolist() != [0]:
        raise Doubt(
            "fail", "torchvision's operations answer wrongly.", "Install torch and torchvision again."
        )
    return "torchvision's operations run in this torch"


def device(settings: Settings) -> str:
    import torch

    from lookalike_server.device import device_names

    names = device_names(settings.device)
    found = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if names == ["cpu"]:
        return f"cpu{f' (there is {found[0]} too)' if found else ''}"
    for name in names:
        torch.zeros(1, device=name).add(1).item()
    return ", ".join(f"{name}: {found[int(name.partition(':')[2])]}" for name in names)


def thread_counts(settings: Settings) -> str:
    from lookalike_server.device import cores, device_names, threads

    names = device_names(settings.device)
    shared, count = threads(names[0], settings.replicas), cores()
    each = settings.torch_threads or shared.torch
    torch_threads = each * settings.replicas * len(names)
    decoders = settings.decode_threads or shared.decode
    told = f"{count} cores; {torch_threads} threads of the model, {decoders} that decode"
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) < each:
        raise Doubt("warn", f"{told}; OMP_NUM_THREADS={asked} is less", "Unset OMP_NUM_THREADS.")
    if torch_threads + decoders > count + 1:
        advice = "Set torch_threads, for each of the replicas, and decode_threads to no more than the cores."
        raise Doubt("warn", told, advice)
    return told


def front_ends(settings: Settings) -> str:
    from lookalike_server.device import cores, device_names, threads

    count = settings.front_ends
    if not count:
        return "none; the server speaks gRPC itself"
    names = device_names(settings.device)
    each = settings.torch_threads or threads(names[0], settings.replicas).torch
    models = each * settings.replicas * len(names)
    if models + count > cores():
        told = f"{count}, beside {models} threads of the model on {cores()} cores"
        raise Doubt("warn", told, "Set torch_threads to leave them cores, or front_ends to 0.")
    return f"{count} processes speak gRPC for the server"


def memory(settings: Settings) -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text("ascii").strip() if limit.exists() else "max"
    usable = memory if text == "max" else min(memory, int(text))
    told = f"{usable / _GIB:.1f} GiB{'' if text == 'max' else ', the limit of this container'}"
    if usable < _LEAST_MEMORY + settings.queue_bytes:
        raise Doubt("warn", told, "Give it 2 GiB more than queue_bytes, or large collections will not fit.")
    return told


def decoders(settings: Settings) -> str:
    import numpy as np
    from lookalike_extractor.images import ImageLimits, decode
    from lookalike_extractor.preprocessing import Preprocessing
    from PIL import Image

    size = Preprocessing(16, 16, "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    grey, missing = Image.new("RGB", (32, 32), (128, 128, 128)), []
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        file = BytesIO()
        try:
            grey.save(file, form)
            pixels = decode(file.getvalue(), size, ImageLimits())
        except (OSError, KeyError, LookalikeError):
            missing.append(form)
            continue
        if np.abs(pixels.astype(int) - 128).max() > 4:
            missing.append(form)
    if missing:
        raise Doubt(
            "fail", f"{', '.join(missing)} cannot be decoded.", "Install pillow and simplejpeg again."
        )
    return "JPEG, PNG, WebP, GIF, BMP and TIFF are decoded"


def gpu_decode(settings: Settings) -> str:
    from lookalike_server.device import device_names
    from lookalike_server.errors import ConfigInvalid
    from lookalike_server.gpu_decoding import gpu_decoder

    if not settings.gpu_decode and device_names(settings.device)[0] == "cpu":
        return "off, and the device is the CPU"
    try:
        decoder = gpu_decoder(settings.device)
    except ConfigInvalid as error:
        if settings.gpu_decode:
            raise
        return f"off, and not available: {error.message}"
    return f"{'on' if settings.gpu_decode else 'off, but available'}: {decoder.device} decodes JPEGs"


def weights(settings: Settings) -> str:
    from lookalike_extractor.backbones import list_backbones

    from lookalike_server.assembly import served_recipes

    recipes, sources = served_recipes(settings), {info.name: info.weights for info in list_backbones()}
    for recipe in recipes.values():
        if recipe.weights is not None and not Path(recipe.weights).is_file():
            raise Doubt("fail", f"{recipe.name}: there is no file {recipe.weights}.", "Correct its weights.")
    fetched = [
        r.name for r in recipes.values() if r.weights is None and sources.get(r.backbone) == "download"
    ]
    if fetched:
        names = ", ".join(fetched)
        raise Doubt(
            "warn", f"{names}: weights are downloaded at the first start", "Start it once while online."
        )
    return f"{', '.join(recipes)}: weights are here"


def canary(settings: Settings) -> str:
    """Loads the models and sends one image the whole way; nothing is stored."""
    from lookalike_server.assembly import make_engine, served_recipes

    async def embed() -> str:
        started = time.monotonic()
        engine = make_engine(settings, served_recipes(settings))
        await engine.start()
        warm = time.monotonic()
        try:
            await engine.try_out()
        finally:
            await engine.close()
        took = time.monotonic() - warm
        return f"models are loaded in {warm - started:.1f} s, an image becomes descriptors in {took:.2f} s"

    return asyncio.run(embed())
