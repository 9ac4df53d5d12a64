"""Batches of few sizes: passes that are recorded, and code that is made once."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from gpus import pixels
from lookalike_extractor.backbones.base import Backbone
from lookalike_extractor.descriptor import DescriptorModel
from lookalike_extractor.recipe import Recipe, Tap
from lookalike_server.captured import Captured, Pass, sizes
from lookalike_server.cuda import CudaDevice
from lookalike_server.device import Device
from lookalike_server.errors import ConfigInvalid
from lookalike_server.runtimes import choose
from serving import TINY
from torch import Tensor, nn

COUNTS = (1, 2, 3, 5, 8, 11, 12)


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.conv(x)).relu())


@pytest.fixture
def model() -> DescriptorModel:
    torch.manual_seed(3)
    backbone = Backbone("convolutions", Convolutions().eval(), TINY, "none")
    recipe = Recipe("small", "convolutions", (Tap("last", "avg"),), None, None, None, 0.9)
    return DescriptorModel(backbone, [recipe])


class Recorder:
    """Passes that give their rows in the same memory each time, as graphs do, and are of one size.

    Attributes:
        ran: sizes of the passes that were run.
    """

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.ran: list[int] = []

    def record(self, model: DescriptorModel, pixels: Tensor) -> Pass:
        self.recorded.append(len(pixels))
        rows = {
            recipe: torch.full((len(pixels), space.dimension), torch.nan) for recipe, space in spaces(model)
        }

        def run() -> dict[str, Tensor]:
            self.ran.append(len(pixels))
            with torch.inference_mode():
                for recipe, described in model(pixels).items():
                    rows[recipe].copy_(described)
            return rows

        return run


def spaces(model: DescriptorModel) -> Sequence[Any]:
    return list(model.spaces.items())


def test_the_sizes_are_few_and_none_pads_a_batch_by_half() -> None:
    assert sizes(1) == [1]
    assert sizes(12) == [1, 2, 3, 4, 6, 8, 12]
    assert sizes(40) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40]
    assert len(sizes(256)) == 16
    for larger, size in zip(sizes(256)[1:], sizes(256), strict=False):
        assert larger <= 1.5 * (size + 1)


def test_batches_are_padded_to_the_next_size_and_their_rows_are_their_own(model: DescriptorModel) -> None:
    recorder = Recorder()
    captured, plain = Device([Captured(model, 12, recorder)]), Device([model])  # type: ignore[list-item]
    assert recorder.recorded == [12, 8, 6, 4, 3, 2, 1]
    for count in COUNTS:
        batch = pixels(count, count)
        np.testing.assert_array_equal(captured.run(0, batch)["small"], plain.run(0, batch)["small"])
    assert recorder.ran == [1, 2, 3, 6, 8, 12, 12]


def test_a_larger_batch_than_any_that_was_recorded_is_computed_without(model: DescriptorModel) -> None:
    recorder = Recorder()
    captured, batch = Device([Captured(model, 4, recorder)]), pixels(7)  # type: ignore[list-item]
    np.testing.assert_array_equal(captured.run(0, batch)["small"], Device([model]).run(0, batch)["small"])
    assert not recorder.ran


def test_graphs_are_refused_where_there_is_no_gpu(model: DescriptorModel) -> None:
    with pytest.raises(ConfigInvalid, match="'graphs' is for GPUs"):
        choose([model], "graphs", "cpu")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (g++)")
def test_a_compiled_model_is_compiled_for_every_size_before_it_serves(model: DescriptorModel) -> None:
    torch.set_num_threads(torch.get_num_threads())  # for new threads too, whatever other tests have set
    torch.compiler.reset()
    made = torch._dynamo.utils.counters["stats"]
    (trial,) = choose([model], "compile", "cpu", most=33)
    assert trial.steady
    device, before = Device([trial.model], "cpu", [trial.runtime]), made["unique_graphs"]
    assert before

    def serve() -> None:
        device.warm_up()
        for count in range(1, 34):
            device.run(0, pixels(count))

    server = threading.Thread(target=serve)
    server.start()
    server.join()
    assert made["unique_graphs"] == before


# On a GPU. None of what is below has run yet: no machine with one was at hand when it was written.

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")


@on_a_gpu
@pytest.mark.parametrize("wish", ["graphs", "graphs-bf16"])
def test_on_a_gpu_graphs_give_what_the_model_gives_at_their_sizes(model: DescriptorModel, wish: str) -> None:
    plain = choose([model], wish.replace("graphs", "eager"), "cuda:0")[0].model
    (trial,) = choose([model], wish, "cuda:0", most=12)
    waited, device = Device([plain], "cuda:0"), CudaDevice([trial.model], "cuda:0")
    for count in COUNTS:
        batch = pixels(count, count)
        size = next(size for size in sizes(12) if size >= count)
        whole = waited.run(0, [*batch, *pixels(size - count)])["small"]
        np.testing.assert_array_equal(device.run(0, batch)["small"], whole[:count])


@on_a_gpu
def test_on_a_gpu_graphs_of_different_sizes_follow_each_other_in_flight(model: DescriptorModel) -> None:
    (trial,) = choose([model], "graphs", "cuda:0", most=12)
    device = CudaDevice([trial.model], "cuda:0")
    batches = [pixels(count, seed) for seed, count in enumerate(COUNTS * 5)]
    alone = [device.run(0, batch)["small"] for batch in batches]
    flights = [device.begin(0, batch) for batch in batches]
    for flight, expected in zip(flights, alone, strict=True):
        np.testing.assert_array_equal(flight.result()["small"], expected)
