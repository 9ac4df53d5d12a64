"""Models, loaded onto the device of each replica: the same, in the same runtimes, with the same answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from lookalike_extractor.descriptor import load_descriptor_models

from lookalike_server.cuda import CudaDevice
from lookalike_server.device import Descriptors, Device, device_names
from lookalike_server.errors import ConfigInvalid
from lookalike_server.runtimes import LEAST_COSINE, Trial, choose, pictures

if TYPE_CHECKING:
    from lookalike_extractor.recipe import Recipe

    from lookalike_server.config import Settings

_IMAGES = 4

_log = logging.getLogger(__name__)


def load_devices(settings: Settings, recipes: Sequence[Recipe]) -> list[Device]:
    """Loads the models of the recipes, once for each replica. Takes seconds, and more to choose runtimes.

    Raises what the models raise, and ConfigInvalid when a device is not there or computes something else.
    """
    devices: list[Device] = []
    for name in device_names(settings.device):
        for _ in range(settings.replicas):
            models = load_descriptor_models(recipes)
            wishes = devices[0].runtimes if devices else [settings.runtime] * len(models)
            chosen = [
                choose([model], wish, name, settings.max_batch)[0]
                for model, wish in zip(models, wishes, strict=True)
            ]
            devices.append(device_on(name, chosen))
    check_alike(devices)
    return devices


def device_on(name: str, chosen: Sequence[Trial]) -> Device:
    """Models, each in a runtime, on the device of that name."""
    kind = CudaDevice if name.startswith("cuda") else Device
    return kind([trial.model for trial in chosen], name, [trial.runtime for trial in chosen])


def check_alike(devices: Sequence[Device]) -> None:
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


def _described(device: Device, index: int) -> Descriptors:
    images = pictures(device.models[index].preprocessing, _IMAGES).permute(0, 2, 3, 1).contiguous().numpy()
    return device.run(index, list(images))
