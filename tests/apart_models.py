"""What processes of models load in tests. It is imported there too."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lookalike_extractor.errors import WeightsUnavailable
from lookalike_extractor.recipe import Space
from lookalike_server.device import Device
from serving import TinyModel

DEADLY, HANGING, FAULTY = 13, 14, 15


class Moody(TinyModel):
    """Meets its end, hangs for good, or fails, at images that are all of one grey level."""

    def forward(self, images: torch.Tensor) -> Any:
        greys = {int(image.min()) for image in images if image.min() == image.max()}
        if DEADLY in greys:
            os.kill(os.getpid(), signal.SIGKILL)
        if HANGING in greys:
            time.sleep(3600)
        if FAULTY in greys:
            raise ValueError("the model's own fault")
        return super().forward(images)


def moody(wishes: Sequence[str]) -> Device:
    return Device([Moody()])


def out_of(file: Path, wishes: Sequence[str]) -> Device:
    """A model whose space is what a file says. Raises WeightsUnavailable when there is none."""
    if not file.exists():
        raise WeightsUnavailable(f"{file.name} is not there")
    model = TinyModel()
    model.spaces = {
        name: Space(file.read_text(), space.dimension, name) for name, space in model.spaces.items()
    }
    return Device([model])
