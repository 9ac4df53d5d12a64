"""What a model's process is told, and what it says.

It is pickled: both are this program, and nobody else can write to their socket.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lookalike_extractor.errors import LookalikeError
from lookalike_extractor.preprocessing import Preprocessing
from lookalike_extractor.recipe import Space

from lookalike_server.device import Device


@dataclass(frozen=True)
class Order:
    """Which models to load, and how.

    Attributes:
        name: of the device.
        load: a function of some module, or a partial of one: loads the models, given what they are to run in.
        wishes: the runtime of each model, or one for all.
        max_batch: most images of a batch.
        threads: of torch.
    """

    name: str
    load: Callable[[Sequence[str]], Device]
    wishes: Sequence[str]
    max_batch: int
    threads: int
    log_format: str = "text"
    log_level: str = "warning"


@dataclass(frozen=True)
class Shown:
    """What a server needs to know of a model."""

    spaces: dict[str, Space]
    preprocessing: Preprocessing
    pads_one: bool


@dataclass(frozen=True)
class Loaded:
    """Attributes:
    runtimes: one of each model.
    """

    models: Sequence[Shown]
    runtimes: Sequence[str]

    @property
    def inputs(self) -> list[Preprocessing]:
        """Of each model."""
        return [model.preprocessing for model in self.models]


@dataclass(frozen=True)
class Batch:
    """So many images of a model, which lie in the memory."""

    model: int
    images: int


class WarmUp:
    """Asks for what Device.warm_up returns."""


def tellable(error: Exception) -> Exception:
    """An error as it can be told to another process: any other one may hold what cannot be sent."""
    if isinstance(error, LookalikeError):
        return error
    return RuntimeError("".join(traceback.format_exception(error)).strip())
