"""Models, loaded onto the device of each replica: the same, in the same runtimes, with the same answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from lookalike_extractor.descriptor import load_descriptor_models

from lookalike_server.apart.device import ApartDevice
from lookalike_server.apart.orders import Order
from lookalike_server.apart.process import end_early
from lookalike_server.cuda import CudaDevice
from lookalike_server.device import Descriptors, Device, Threads, device_names, threads
from lookalike_server.errors import ConfigInvalid
from lookalike_server.runtimes import LEAST_COSINE, Trial, choose, pictures

if TYPE_CHECKING:
    from lookalike_extractor.recipe import Recipe

    from lookalike_server.config import Settings
    from lookalike_server.served import Runner

_IMAGES = 4

_log = logging.getLogger(__name__)


def load_devices(settings: Settings, recipes: Sequence[Recipe]) -> list[Runner]:
    """Loads the models of the recipes, once for each replica. Takes seconds, and more to choose runtimes.

    Raises what the models raise, and ConfigInvalid when a device is not there or computes something else.
    """
    devices: list[Runner] = []
    for name in device_names(settings.device):
        for _ in range(settings.replicas):
            wishes = devices[0].runtimes if devices else [settings.runtime]
            devices.append(_load(settings, name, recipes, wishes))
    end_early()
    check_alike(devices)
    return devices


def _load(settings: Settings, name: str, recipes: Sequence[Recipe], wishes: Sequence[str]) -> Runner:
    load = partial(load_device, name, recipes, settings.max_batch)
    if name != "cpu" or not settings.model_process:
        return load(wishes)
    return ApartDevice(
        Order(
            name,
            load,
            wishes,
            max_batch=max(_IMAGES, settings.max_batch),
            threads=settings.torch_threads or share_of_threads(settings).torch,
            log_format=settings.log_format,
            log_level=settings.log_level,
        )
    )


def load_device(name: str, recipes: Sequence[Recipe], max_batch: int, wishes: Sequence[str]) -> Device:
    """Loads the models of the recipes onto one device of this process.

    Args:
        wishes: the runtime of each model, or one for all.
    """
    models = load_descriptor_models(recipes)
    each = wishes if len(wishes) > 1 else [*wishes] * len(models)
    return device_on(
        name,
        [choose([model], wish, name, max_batch)[0] for model, wish in zip(models, each, strict=True)],
    )


def share_of_threads(settings: Settings) -> Threads:
    """Raises ConfigInvalid when a device is not there."""
    return threads(device_names(settings.device)[0], settings.replicas)


def device_on(name: str, chosen: Sequence[Trial]) -> Device:
    """Models, each in a runtime, on the device of that name."""
    kind = CudaDevice if name.startswith("cuda") else Device
    return kind([trial.model for trial in chosen], name, [trial.runtime for trial in chosen])


def check_alike(devices: Sequence[Runner]) -> None:
    """Raises ConfigInvalid where a device's descriptors are not the first one's.

    Those of another kind of device may differ in the last bits, which is logged.
    """
    first, *others = devices
    for device in others:
        for index in range(len(first.models)):
            expected, got = _described(first, index), _described(device, index)
            least = min(float((expected[name] * got[name]).sum(1).min()) for name in expected)
            if not least >= LEAST_COSINE:
                raise ConfigInvalid(
                    f"device: {device.name} gives other descriptors than {first.name} "
                    f"({', '.join(expected)}: cosine {least:.6f}). Leave it out."
                )
            if any(not np.array_equal(expected[name], got[name]) for name in expected):
                _log.warning(
                    "descriptors of %s differ from those of %s in the last bits (%s: cosine %.6f)",
                    device.name,
                    first.name,
                    ", ".join(expected),
                    least,
                )


def _described(device: Runner, index: int) -> Descriptors:
    images = pictures(device.models[index].preprocessing, _IMAGES).permute(0, 2, 3, 1).contiguous().numpy()
    return device.begin(index, list(images)).result()
