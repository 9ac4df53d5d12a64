"""Models in a process of their own."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from apart_models import DEADLY, FAULTY, HANGING, moody, out_of
from engines import eventually, one, running
from lookalike_extractor.errors import NoFace, WeightsUnavailable
from lookalike_extractor.images import fit
from lookalike_extractor.recipe import face_recipe
from lookalike_server.apart import process
from lookalike_server.apart.device import ApartDevice
from lookalike_server.apart.orders import Order
from lookalike_server.config import Settings
from lookalike_server.device import Device
from lookalike_server.devices import load_device
from lookalike_server.errors import DeviceStalled, InternalError
from made_faces import BLACK, WHITE, weights
from photos import encode, photo
from PIL import Image
from serving import TinyModel

PHOTOS = [encode(photo(name).resize((60, 50))) for name in ("chelsea", "coffee", "astronaut")]
PIXELS = list(np.random.default_rng(3).integers(0, 255, (3, 16, 16, 3), np.uint8))


def order(load: Callable[..., Device] = moody) -> Order:
    return Order("cpu", load, ["eager"], max_batch=4, threads=2)


def grey(level: int) -> bytes:
    return encode(Image.new("RGB", (16, 16), (level,) * 3), "PNG")


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def lives(process: int) -> bool:
    """Whether it does; one that has ended and was not asked for its status does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def device() -> Iterator[ApartDevice]:
    device = ApartDevice(order())
    yield device
    device.give_up()


def test_descriptors_are_those_of_this_process_bit_for_bit(device: ApartDevice) -> None:
    expected = Device([TinyModel()]).run(0, PIXELS)["tiny"]
    assert np.array_equal(device.begin(0, PIXELS).result()["tiny"], expected)
    assert np.array_equal(device.begin(0, PIXELS[:1]).result()["tiny"], expected[:1])


def test_it_tells_what_its_models_are_and_what_batches_cost(device: ApartDevice) -> None:
    (model,), here = device.models, TinyModel()
    assert (model.spaces, model.preprocessing) == (here.spaces, here.preprocessing)
    (tried,) = device.warm_up()
    assert all(seconds > 0 for _, seconds in tried)


def test_the_networks_that_find_faces_come_back_from_it(tmp_path: Path) -> None:
    recipe = face_recipe(str(weights(tmp_path)))
    device = ApartDevice(order(partial(load_device, "cpu", [recipe], 4)))
    preprocessing = device.models[0].preprocessing
    assert fit(WHITE, preprocessing).shape == (preprocessing.height, preprocessing.width, 3)
    with pytest.raises(NoFace):
        fit(BLACK, preprocessing)


def test_a_fault_of_the_model_is_told_and_the_next_batch_goes_well(
    device: ApartDevice, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with running(device, max_batch=4) as engine:
            ill, well = await one(engine, grey(FAULTY)), await one(engine, PHOTOS[0])
        assert isinstance(ill.error, InternalError)
        assert well.error is None
        assert "the model's own fault" in caplog.text

    asyncio.run(scenario())


def test_an_image_that_ends_the_process_harms_nobody_after_it(
    device: ApartDevice, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        expected = Device([TinyModel()])
        async with running(device, max_batch=4) as engine, running(expected, max_batch=4) as other:
            deadly, good = await one(engine, grey(DEADLY)), await one(engine, PHOTOS[1])
            reference = await one(other, PHOTOS[1])
        assert isinstance(deadly.error, InternalError)
        assert good.error is None
        assert np.array_equal(good.descriptors["tiny"], reference.descriptors["tiny"])
        assert "SIGKILL; perhaps the system had no memory left. Another one is started" in caplog.text

    asyncio.run(scenario())


def test_a_model_that_hangs_for_good_is_ended_and_works_again(
    device: ApartDevice, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with running(device, max_batch=4, stall_seconds=3, canary_seconds=1) as engine:
            await engine.try_out()
            with pytest.raises(DeviceStalled):
                await one(engine, grey(HANGING))
            await eventually(lambda: engine.health().ready, 30)
            assert (await one(engine, PHOTOS[2])).error is None
            assert not engine.broken.is_set()
        assert "ended by SIGKILL, for it hung. Another one is started" in caplog.text

    asyncio.run(scenario())


def test_what_the_models_raise_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match="weights is not there"):
        ApartDevice(order(partial(out_of, tmp_path / "weights")))


def test_a_server_whose_files_have_changed_meanwhile_does_not_go_on_with_another_space(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        space = tmp_path / "space"
        space.write_text("first")
        device = ApartDevice(order(partial(out_of, space)))
        space.write_text("second")
        async with running(device, max_batch=4) as engine:
            device._process.kill()
            device._process.wait()
            outcome = await one(engine, PHOTOS[0])
            assert isinstance(outcome.error, InternalError)
            await eventually(engine.broken.is_set)

    asyncio.run(scenario())


def test_a_system_without_room_for_a_process_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(process, "spawn", none)
    with pytest.raises(InternalError, match="cannot be started: Resource temporarily unavailable"):
        ApartDevice(order())


def test_a_process_that_was_started_early_gets_the_first_order() -> None:
    process.start_early(Settings(device="cpu", runtime="eager"))
    (early,) = process._early
    assert lives(early.process.pid)
    device = ApartDevice(order())
    assert device._process.pid == early.process.pid
    assert np.array_equal(
        device.begin(0, PIXELS).result()["tiny"], Device([TinyModel()]).run(0, PIXELS)["tiny"]
    )
    assert not process._early


def test_a_process_that_was_started_early_and_is_not_wanted_ends() -> None:
    process.start_early(Settings(device="cpu"))
    process.start_early(Settings(device="cpu", model_process=False))
    process.start_early(Settings(device="cuda:0"))
    (early,) = process._early
    process.end_early()
    assert not lives(early.process.pid)


def test_a_process_whose_server_ends_without_an_order_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    started = process.take(["eager"])
    started.connection.close()
    os.close(started.memory)
    assert (started.process.wait(60), capfd.readouterr().err) == (0, "")


def test_the_process_ends_with_its_device() -> None:
    device = ApartDevice(order())
    pid = device._process.pid
    assert lives(pid)
    del device
    gc.collect()
    assert not lives(pid)


def test_the_process_ends_with_its_server_even_in_the_midst_of_a_batch() -> None:
    code = (
        "import sys, threading, numpy as np; from test_apart import ApartDevice, HANGING, order\n"
        "device = ApartDevice(order()); print(device._process.pid, flush=True)\n"
        "device.begin(0, [np.full((16, 16, 3), HANGING, np.uint8)])"
    )
    path = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    server = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    with server:
        assert server.stdout is not None
        process = int(server.stdout.readline())
        assert lives(process)
        server.send_signal(signal.SIGKILL)
    wait_for(lambda: not lives(process))
