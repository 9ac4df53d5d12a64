"""What an engine serves: models on the devices of its replicas, and the recipes that they compute."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from lookalike_extractor.errors import did_you_mean
from lookalike_extractor.preprocessing import Preprocessing
from lookalike_extractor.recipe import Space
from numpy.typing import NDArray

from lookalike_server.costs import SMALLEST, Cost
from lookalike_server.errors import RecipeUnknown

if TYPE_CHECKING:
    from lookalike_extractor.recipe import Recipe

# What a batch of a trial tells of sizes, in other batches: little, for nothing else went on beside it.
_TRIAL_WEIGHT = 1.0


class Described(Protocol):
    """What the engine needs to know of a model (lookalike_extractor.DescriptorModel, apart.orders.Shown)."""

    @property
    def spaces(self) -> Mapping[str, Space]: ...
    @property
    def preprocessing(self) -> Preprocessing: ...
    @property
    def pads_one(self) -> bool:
        """Whether one image takes as long as two."""


class InFlight(Protocol):
    """A batch that was begun (device.Finished, cuda.Flight)."""

    @property
    def late(self) -> float:
        """Seconds for which its result was there before it was asked for, as far as that is known."""

    def done(self) -> bool:
        """Whether its result is there. Raises why it will never be."""

    def result(self) -> dict[str, NDArray[np.float32]]:
        """Waits for float32 [n, d] by recipe. Raises why there is none."""


class Runner(Protocol):
    """What the engine needs of a device (device.Device, apart.device.ApartDevice)."""

    @property
    def name(self) -> str: ...
    @property
    def at_once(self) -> int: ...
    @property
    def models(self) -> Sequence[Described]: ...
    @property
    def runtimes(self) -> Sequence[str]: ...
    def warm_up(self) -> Sequence[Sequence[tuple[int, float]]]: ...
    def usable(self) -> bool: ...
    def give_up(self) -> None:
        """Ends a batch that hangs, where that is possible. Any thread may call it."""

    def begin(self, model: int, pixels: Sequence[NDArray[np.uint8]]) -> InFlight: ...


class Model:
    """A model on every replica's device.

    Whoever works with it refers to it, so one that is served no more lives as long as its last image.

    Args:
        devices: one for each replica, each with the same models.
        index: of the model on them.

    Attributes:
        number: no other model of this process has it.
        group: its recipes joined by commas.
        cost: of its batches.
        gpu_decode: whether JPEGs that a GPU has decoded get the same descriptors (gpu_agreement.py).
    """

    _numbers = itertools.count()

    def __init__(self, devices: Sequence[Runner], index: int) -> None:
        first = devices[0]
        self.number = next(self._numbers)
        self.spaces: Mapping[str, Space] = first.models[index].spaces
        self.preprocessing = first.models[index].preprocessing
        self.runtime = first.runtimes[index]
        self.group = ",".join(self.spaces)
        self.cost = Cost(smallest=SMALLEST if first.models[index].pads_one else 1)
        self.gpu_decode = False
        self._devices, self._index = devices, index

    def begin(self, replica: int, pixels: Sequence[NDArray[np.uint8]]) -> InFlight:
        """Begins to compute n images uint8 [h, w, 3] of its input size."""
        return self._devices[replica].begin(self._index, pixels)

    def usable(self, replica: int) -> bool:
        """Whether its device there still answers."""
        return self._devices[replica].usable()

    def give_up(self, replica: int) -> None:
        """Ends the batch that its device there hangs at, where that is possible."""
        self._devices[replica].give_up()

    def learn(self, tried: Sequence[tuple[int, float]]) -> None:
        """Takes note of sizes of batches, and the seconds they took."""
        for n, seconds in tried:
            self.cost.learn(n, seconds, _TRIAL_WEIGHT)


def models_on(devices: Sequence[Runner]) -> list[Model]:
    """The models of devices that all have the same ones."""
    return [Model(devices, index) for index in range(len(devices[0].models))]


@dataclass(frozen=True)
class Served:
    """What is served at one moment. A reload puts another one in its place.

    Attributes:
        recipes: by name; the first is the default.
    """

    recipes: Mapping[str, Recipe]
    models: Sequence[Model]

    @cached_property
    def model_of(self) -> Mapping[str, Model]:
        """By recipe."""
        found = {name: model for model in self.models for name in model.spaces}
        return {name: found[name] for name in self.recipes}

    @cached_property
    def spaces(self) -> Mapping[str, Space]:
        """By recipe."""
        return {name: model.spaces[name] for name, model in self.model_of.items()}

    def recipe_name(self, name: str) -> str:
        """Returns the name, or the default's for "". Raises RecipeUnknown."""
        if not name:
            return next(iter(self.recipes))
        if name not in self.recipes:
            near = did_you_mean(name, self.recipes) or f" It computes {', '.join(self.recipes)}."
            raise RecipeUnknown(f"There is no recipe {name!r} on this server.{near}", recipe=name)
        return name
