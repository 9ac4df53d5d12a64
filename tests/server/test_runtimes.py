"""The choice of what a model runs in."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from lookalike_extractor.descriptor import DescriptorModel, load_descriptor_models
from lookalike_extractor.recipe import RECIPES
from lookalike_server import runtimes
from lookalike_server.errors import ConfigInvalid
from lookalike_server.runtimes import choose, pictures
from torch import Tensor, nn


@pytest.fixture(scope="module")
def model() -> DescriptorModel:
    (model,) = load_descriptor_models([RECIPES["near_duplicate"]])
    return model


class Clock:
    """Stands still while nobody winds it, so that no other load on the machine decides."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(runtimes, "time", clock)
    return clock


class Timed(nn.Module):
    """Takes some seconds of a clock for the same answers, or for others."""

    def __init__(
        self, extractor: nn.Module, clock: Clock, seconds: float, change: Any = lambda n, value: value
    ) -> None:
        super().__init__()
        self.extractor, self.clock, self.seconds, self.change = extractor, clock, seconds, change

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.clock.now += self.seconds
        return {key: self.change(len(x), value) for key, value in self.extractor(x).items()}


def with_extractor(model: DescriptorModel, extractor: nn.Module) -> DescriptorModel:
    changed = copy.copy(model)
    changed._modules = model._modules | {"extractor": extractor}
    return changed


def offering(monkeypatch: pytest.MonkeyPatch, extractor: nn.Module) -> None:
    """Makes "openvino" a runtime that runs this extractor."""

    class Made:
        module, runtime, precision = extractor, "openvino", "fp32"

    monkeypatch.setattr(runtimes, "optimize", lambda *_, **__: Made)
    monkeypatch.setattr(runtimes, "_candidates", lambda device: ["openvino"])


def test_eager_on_request_is_the_model_itself(model: DescriptorModel) -> None:
    (trial,) = choose([model], "eager", "cpu")
    assert trial.model is model
    assert trial.runtime == "eager"


def test_the_fastest_that_is_right_is_taken(
    model: DescriptorModel, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    offering(monkeypatch, Timed(model.extractor, clock, 0.1))
    slow = with_extractor(model, Timed(model.extractor, clock, 0.4))
    (trial,) = choose([slow], "auto", "cpu")
    assert trial.runtime == "openvino"
    pixels = pictures(model.preprocessing, 2)
    with torch.inference_mode():
        torch.testing.assert_close(trial.model(pixels), model(pixels), atol=0, rtol=0)


@pytest.mark.parametrize(
    "change",
    [lambda n, value: value * (1 + 1e-3 * n * torch.rand(value.shape[1:])), lambda n, value: value.flip(-1)],
    ids=["depends on the batch", "gives other values"],
)
def test_a_fast_one_that_is_not_right_is_left(
    model: DescriptorModel, monkeypatch: pytest.MonkeyPatch, clock: Clock, change: Any
) -> None:
    offering(monkeypatch, Timed(model.extractor, clock, 0.1, change))
    slow = with_extractor(model, Timed(model.extractor, clock, 0.4))
    (trial,) = choose([slow], "auto", "cpu")
    assert trial.runtime == "eager"
    assert trial.model is slow


def test_a_runtime_that_is_not_there_cannot_be_wished_for(
    model: DescriptorModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object, **__: object) -> None:
        raise runtimes.LookalikeError("openvino cannot be used: it is not installed")

    monkeypatch.setattr(runtimes, "optimize", absent)
    with pytest.raises(ConfigInvalid, match="not installed"):
        choose([model], "openvino", "cpu")


def test_the_pictures_are_always_the_same_and_no_noise(model: DescriptorModel) -> None:
    first, second = pictures(model.preprocessing, 2), pictures(model.preprocessing, 2)
    torch.testing.assert_close(first, second)
    neighbours = first[..., 1:].float().flatten(), first[..., :-1].float().flatten()
    assert float(torch.corrcoef(torch.stack(neighbours))[0, 1]) > 0.7


class ByItself(nn.Module):
    """Computes one image as the first of two; its answers then change by so many times.

    Attributes:
        sizes: of the batches it was given.
    """

    def __init__(self, extractor: nn.Module, clock: Clock, times: float) -> None:
        super().__init__()
        self.extractor, self.clock, self.times, self.sizes = extractor, clock, times, list[int]()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.sizes.append(len(x))
        self.clock.now += 0.01
        if len(x) > 1:
            return self.extractor(x)  # type: ignore[no-any-return]
        return {key: value[:1] * self.times for key, value in self.extractor(torch.cat([x, x])).items()}


@pytest.mark.parametrize(("times", "seen"), [(1.0, 1), (1.01, 2)])
def test_one_image_is_computed_as_one_only_where_that_gives_the_same_bits(
    times: float, seen: int, model: DescriptorModel, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = ByItself(model.extractor, clock, times)
    offering(monkeypatch, extractor)
    (trial,) = choose([model], "openvino", "cpu")
    extractor.sizes.clear()
    with torch.inference_mode():
        trial.model(pictures(model.preprocessing, 1))
    assert extractor.sizes == [seen]
