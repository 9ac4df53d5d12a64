"""A GPU's own device: with streams made by hand here, and on a GPU where there is one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from engines import one, running
from gpus import HandGpu, pixels
from lookalike_extractor.images import decode, sniff
from lookalike_extractor.preprocessing import Preprocessing
from lookalike_server.cuda import CudaDevice, Streams
from lookalike_server.device import Device
from lookalike_server.gpu_decoding import GpuDecoder, gpu_decoder
from photos import encode, photo
from PIL import Image
from serving import TINY, TinyModel

BATCHES = [pixels(count, seed) for seed, count in enumerate((3, 7, 2, 5, 7, 1))]


@pytest.fixture(scope="module")
def expected() -> list[np.ndarray]:
    """Of the device that computes at once."""
    device = Device([TinyModel()])
    return [device.run(0, batch)["tiny"] for batch in BATCHES]


def in_pairs(device: CudaDevice) -> list[np.ndarray]:
    """The descriptors of all batches, each begun before the one before is asked for."""
    results, before = [], None
    for batch in BATCHES:
        flight = device.begin(0, batch)
        if before is not None:
            results.append(before.result()["tiny"])
        before = flight
    assert before is not None
    return [*results, before.result()["tiny"]]


def all_equal(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_batches_in_flight_are_those_of_the_device_that_computes_at_once(expected: list[np.ndarray]) -> None:
    assert all_equal(in_pairs(HandGpu()), expected)
    assert all_equal([HandGpu().run(0, batch)["tiny"] for batch in BATCHES], expected)


def test_results_may_be_asked_for_in_any_order(expected: list[np.ndarray]) -> None:
    device = HandGpu()
    first, second = (device.begin(0, batch) for batch in BATCHES[:2])
    assert all_equal([second.result()["tiny"], first.result()["tiny"]], expected[1::-1])


def test_a_begin_waits_for_nothing_and_a_result_for_its_own_batch() -> None:
    device = HandGpu()
    device.streams.computing.go.clear()
    first, second = (device.begin(0, batch) for batch in BATCHES[:2])
    assert not first.done()
    assert not second.done()
    device.streams.computing.go.set()
    first.result()
    assert first.done()


def test_memory_is_not_written_while_a_copy_of_it_is_under_way(expected: list[np.ndarray]) -> None:
    device = HandGpu()
    device.streams.copying.go.clear()
    flights = [device.begin(0, batch) for batch in BATCHES[:2]]
    third = threading.Thread(target=lambda: flights.append(device.begin(0, BATCHES[2])))
    third.start()
    third.join(0.1)
    assert third.is_alive()  # both slots are taken
    device.streams.copying.go.set()
    third.join(60)
    assert all_equal([flight.result()["tiny"] for flight in flights], expected[:3])


def test_a_batch_that_nobody_asks_for_harms_no_later_one(expected: list[np.ndarray]) -> None:
    device = HandGpu()
    for batch in BATCHES:
        device.begin(0, batch)
    assert np.array_equal(device.begin(0, BATCHES[1]).result()["tiny"], expected[1])


def test_without_memory_beside_another_batch_it_waits_for_that_one(
    expected: list[np.ndarray],
) -> None:
    device = HandGpu(seconds=0.05)
    device.streams.cramped = True
    first, second = (device.begin(0, batch) for batch in BATCHES[:2])
    assert second.done()
    assert all_equal([first.result()["tiny"], second.result()["tiny"]], expected[:2])
    assert len(device.streams.spans) == 2


def test_without_memory_when_alone_it_is_halved(expected: list[np.ndarray]) -> None:
    device = HandGpu()
    first = device.begin(0, BATCHES[0])
    device.streams.refusals = 2
    second = device.begin(0, BATCHES[1])
    np.testing.assert_allclose(second.result()["tiny"], expected[1], atol=1e-6)
    assert np.array_equal(first.result()["tiny"], expected[0])
    assert len(device.streams.spans) == 3
    smaller = device.begin(0, BATCHES[2])
    assert np.array_equal(smaller.result()["tiny"], expected[2])


def test_what_goes_wrong_on_the_device_is_told_where_the_result_is_asked_for(
    expected: list[np.ndarray],
) -> None:
    device = HandGpu()
    device.streams.fault = "CUDA error: an illegal memory access was encountered"
    first, second = (device.begin(0, batch) for batch in BATCHES[:2])
    for flight in (first, second):
        with pytest.raises(RuntimeError, match="illegal memory access"):
            flight.result()
    device.streams.fault = ""
    assert all_equal(in_pairs(device), expected)


def test_rows_that_are_missing_are_not_made_up() -> None:
    class OneRow(TinyModel):
        def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"tiny": super().forward(pixels)["tiny"][:1]}

    assert len(HandGpu(OneRow()).begin(0, BATCHES[0]).result()["tiny"]) == 1


# On a GPU. None of what is below has run yet: no machine with one was at hand when it was written.

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")


class Wide(TinyModel):
    """Takes a GPU some milliseconds, so that batches are in flight when the next ones begin."""

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        heavy = torch.ones(2048, 2048, device=pixels.device)
        for _ in range(20):
            heavy = (heavy @ heavy).clamp(0, 1)
        described = super().forward(pixels)
        return {"tiny": described["tiny"] + 0 * heavy[0, 0]}


@pytest.fixture
def gpu() -> CudaDevice:
    return CudaDevice([Wide()], "cuda:0")


@on_a_gpu
def test_on_a_gpu_batches_in_flight_are_those_of_the_road_that_waits(gpu: CudaDevice) -> None:
    waited = Device([Wide()], "cuda:0")
    alone = [waited.run(0, batch)["tiny"] for batch in BATCHES]
    for _ in range(20):
        assert all_equal(in_pairs(gpu), alone)


@on_a_gpu
def test_on_a_gpu_descriptors_are_those_of_the_cpu(gpu: CudaDevice, expected: list[np.ndarray]) -> None:
    for got, on_cpu in zip(in_pairs(gpu), expected, strict=True):
        np.testing.assert_allclose(got, on_cpu, atol=2e-3)  # a GPU may multiply in TF32


@on_a_gpu
def test_on_a_gpu_a_begin_does_not_wait_for_the_device(gpu: CudaDevice) -> None:
    gpu.run(0, BATCHES[0])
    first, second = (gpu.begin(0, batch) for batch in BATCHES[:2])
    assert not second.done()
    first.result()
    second.result()
    assert second.done()


@on_a_gpu
def test_on_a_gpu_pinned_memory_is_kept_until_its_copy_is_done(gpu: CudaDevice) -> None:
    """Ten batches, one behind the other through two slots, so large that copies take long."""
    device = CudaDevice([TinyModel()], "cuda:0")
    batches = [[np.full((512, 512, 3), value, np.uint8)] * 64 for value in range(0, 250, 25)]
    alone = [Device([TinyModel()], "cuda:0").run(0, batch)["tiny"] for batch in batches]
    flights = [device.begin(0, batch) for batch in batches]
    assert all_equal([flight.result()["tiny"] for flight in flights], alone)


@on_a_gpu
def test_on_a_gpu_without_memory_a_batch_is_halved_while_another_is_in_flight() -> None:
    class Hungry(Wide):
        """Takes half of the GPU's memory for each image over four."""

        def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
            if len(pixels) > 4:
                half = torch.cuda.get_device_properties(0).total_memory // 2
                held = [torch.empty(half, dtype=torch.uint8, device="cuda:0") for _ in range(3)]
                del held
            return super().forward(pixels)

    device = CudaDevice([Hungry()], "cuda:0")
    alone = [device.run(0, part)["tiny"] for part in (BATCHES[0], BATCHES[1][:4], BATCHES[1][4:])]
    first, second = device.begin(0, BATCHES[0]), device.begin(0, BATCHES[1])
    assert np.array_equal(first.result()["tiny"], alone[0])
    assert np.array_equal(second.result()["tiny"], np.concatenate(alone[1:]))


@on_a_gpu
def test_on_a_gpu_it_is_known_how_late_a_result_is_asked_for(gpu: CudaDevice) -> None:
    flight = gpu.begin(0, BATCHES[0])
    torch.cuda.synchronize()
    threading.Event().wait(0.05)
    flight.result()
    assert 0.04 < flight.late < 1.0


@pytest.fixture
def decoder() -> GpuDecoder:
    return gpu_decoder("cuda:0")


@on_a_gpu
@pytest.mark.parametrize("orientation", range(1, 9))
def test_on_a_gpu_jpegs_are_decoded_as_on_the_cpu(decoder: GpuDecoder, orientation: int) -> None:
    size = Preprocessing(224, 224, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = photo("astronaut").resize((500, 375))
    files = [
        encode(picture, quality=90, exif=exif),
        encode(picture, quality=90, progressive=True, exif=exif),
        encode(picture, quality=90, subsampling="4:4:4", exif=exif),
        encode(picture.convert("L"), quality=90, exif=exif),
    ]
    found = decoder.decode(files, [layout for file in files if (layout := sniff(file).layout)], size)
    for file, got in zip(files, found, strict=True):
        assert got is not None
        assert np.abs(got.astype(int) - decode(file, size)).mean() < 3  # colours may be enlarged otherwise


@on_a_gpu
def test_on_a_gpu_a_file_that_is_no_jpeg_harms_no_neighbour(decoder: GpuDecoder) -> None:
    file = encode(photo("astronaut").resize((500, 375)), quality=90)
    layout = sniff(file).layout
    assert layout is not None
    found = decoder.decode([file, b"\xff\xd8\xff" + bytes(100), file], [layout] * 3, TINY)
    assert [pixels is None for pixels in found] == [False, True, False]
    assert np.array_equal(found[0], found[2])
    assert decoder.usable()


@on_a_gpu
def test_on_a_gpu_a_model_agrees_with_the_decoder(decoder: GpuDecoder) -> None:
    async def run() -> None:
        async with running(CudaDevice([TinyModel()], "cuda:0"), gpu_decoder=decoder) as engine:
            await engine.try_out()
            assert engine.decodes_on == "cuda:0"
            outcome = await one(engine, encode(photo("astronaut").resize((60, 40)), quality=90))
            assert outcome.error is None

    asyncio.run(run())


@on_a_gpu
def test_on_a_gpu_what_goes_up_and_down_is_pinned() -> None:
    streams = Streams("cuda:0")
    assert streams.pinned(4).is_pinned()
    assert streams.memory(4).is_cuda
