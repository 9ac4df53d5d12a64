"""JPEGs on the road that a GPU decodes, with a decoder that does the same on the CPU."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from engines import eventually, one, running
from lookalike_extractor.errors import ImageError
from lookalike_extractor.images import ImageLimits, decode, sniff
from lookalike_extractor.preprocessing import Preprocessing
from lookalike_server import gpu_decoding
from lookalike_server.assembly import make_engine
from lookalike_server.config import Settings
from lookalike_server.device import Device
from lookalike_server.doctor import _finding, machine
from lookalike_server.engine import Engine
from lookalike_server.errors import ConfigInvalid
from lookalike_server.gpu_decoding import GpuDecoder, gpu_decoder, takes
from photos import encode, photo
from PIL import Image
from serving import TINY, TinyModel

CROP = Preprocessing(48, 48, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), interpolation="bicubic")
SMALL = photo("astronaut").resize((60, 40))
JPEG = encode(SMALL, quality=90)


def noted(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


class Hand(GpuDecoder):
    """On the CPU; it notes how many it was given each time, and what it is told to do with them."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.given: list[int] = []
        self.fault: Callable[[bytes], bool] = lambda file: False
        self.change: Callable[[Any], Any] = lambda planes: planes
        self.hold: threading.Event | None = None
        self.lost = False

    def _planes(self, files: Sequence[bytes]) -> list[Any]:
        self.given.append(len(files))
        if self.hold is not None:
            self.hold.wait(20)
        if self.lost or any(self.fault(file) for file in files):
            raise RuntimeError("CUDA error: nvJPEG status 2")
        return [self.change(planes) for planes in super()._planes(files)]

    def usable(self) -> bool:
        return not self.lost


def on_road(
    work: Callable[[Engine, Hand], Coroutine[Any, Any, None]], decoder: Hand | None = None, **options: Any
) -> None:
    """Does the work on an engine whose decoder has been tried."""
    decoder = decoder or Hand()

    async def run() -> None:
        async with running(Device([TinyModel()]), gpu_decoder=decoder, **options) as engine:
            await engine.try_out()
            decoder.given.clear()
            await work(engine, decoder)

    asyncio.run(run())


@pytest.mark.parametrize("preprocessing", [TINY, CROP])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_pixels_are_those_of_the_cpu(preprocessing: Preprocessing, orientation: int) -> None:
    file = encode(SMALL, quality=90, exif=noted(orientation))
    layout = sniff(file).layout
    assert layout is not None
    (found,) = GpuDecoder("cpu").decode([file], [layout], preprocessing)
    assert found is not None
    expected = decode(file, preprocessing)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 0.5  # how it is rounded


def test_grey_pictures_have_three_channels() -> None:
    file = encode(SMALL.convert("L"))
    layout = sniff(file).layout
    assert layout is not None
    (found,) = GpuDecoder("cpu").decode([file], [layout], TINY)
    assert found is not None
    assert np.abs(found.astype(int) - decode(file, TINY)).max() <= 2


def adobe(transform: int) -> bytes:
    """A JPEG without JFIF that says what its components are as Adobe does."""
    segment = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0" + bytes([transform])
    return JPEG[:2] + segment + JPEG[20:]


@pytest.mark.parametrize(
    ("file", "is_taken"),
    [
        (JPEG, True),
        (encode(SMALL, progressive=True), True),
        (encode(SMALL.convert("L")), True),
        (adobe(1), True),
        (adobe(0), False),
        (encode(SMALL.convert("CMYK")), False),
        (encode(SMALL, "PNG"), False),
        (encode(SMALL, "WEBP"), False),
        (JPEG[:-2], False),
        (JPEG[:-200], False),
        (JPEG + b"more", False),
        (encode(SMALL.resize((600, 400))), False),  # decoded at a fraction of its size
        (JPEG.replace(b"\xff\xc0", b"\xff\xc9", 1), False),  # arithmetic codes
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else str(value),
)
def test_it_takes_ordinary_jpegs_and_leaves_the_rest(file: bytes, is_taken: bool) -> None:
    layout = sniff(file).layout
    assert layout is not None
    assert takes(file, layout, TINY) == is_taken


def test_pictures_of_many_pixels_stay_with_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = sniff(JPEG).layout
    assert layout is not None
    monkeypatch.setattr(gpu_decoding, "_MOST_PIXELS", 60 * 40 - 1)
    assert not takes(JPEG, layout, TINY)


def test_jpegs_go_to_the_decoder_and_others_do_not() -> None:
    async def work(engine: Engine, decoder: Hand) -> None:
        files = [JPEG, encode(SMALL, "PNG"), encode(SMALL.resize((600, 400))), np.asarray(SMALL)]
        outcomes = await engine.embed(files, [])
        assert [outcome.error for outcome in outcomes] == [None] * 4
        assert sum(decoder.given) == 1
        assert outcomes[0].decode_s > 0
        assert engine.decodes_on == "cpu"

    on_road(work)


def test_descriptors_are_those_without_it() -> None:
    async def work(engine: Engine, decoder: Hand) -> None:
        found = (await one(engine, JPEG)).descriptors["tiny"]
        async with running() as plain:
            assert found @ (await one(plain, JPEG)).descriptors["tiny"] > 0.9999

    on_road(work)


def test_what_waits_is_decoded_together() -> None:
    async def work(engine: Engine, decoder: Hand) -> None:
        decoder.hold = threading.Event()
        calls = [asyncio.create_task(engine.embed([encode(SMALL, quality=q)], [])) for q in range(50, 80)]
        stage = engine._road.stages.decoding._gpu
        assert stage is not None
        await eventually(lambda: sum(decoder.given) + len(stage.line) == 30)
        decoder.hold.set()
        await asyncio.gather(*calls)
        assert sum(decoder.given) == 30
        assert len(decoder.given) < 10

    on_road(work)


def test_identical_images_are_decoded_once() -> None:
    async def work(engine: Engine, decoder: Hand) -> None:
        await engine.embed([JPEG] * 8, [])
        assert sum(decoder.given) == 1
        assert (await one(engine, JPEG)).origin == "cached"

    on_road(work, cache_bytes=1 << 20)


def test_an_image_that_it_cannot_decode_is_decoded_by_the_cpu_and_harms_no_neighbour() -> None:
    async def work(engine: Engine, decoder: Hand) -> None:
        files = [encode(SMALL, quality=q) for q in range(50, 58)]
        alone = [(await one(engine, file)).descriptors["tiny"] for file in files]
        decoder.fault = files[3].__eq__
        outcomes = await engine.embed(files, [])
        for outcome, expected in zip(outcomes, alone, strict=True):
            assert outcome.error is None
            np.testing.assert_allclose(outcome.descriptors["tiny"], expected, atol=1e-3)

    on_road(work)


def test_the_cpu_says_what_is_wrong_with_an_image() -> None:
    damaged = JPEG[:300] + b"\xff\xd9"  # cut, with an end marker

    async def work(engine: Engine, decoder: Hand) -> None:
        decoder.fault = lambda file: len(file) < 400
        bad, good = await engine.embed([damaged, JPEG], [])
        assert isinstance(bad.error, ImageError)
        assert good.error is None

    on_road(work)


def test_limits_hold_before_it_is_asked() -> None:
    async def work(engine: Engine, decoder: Hand) -> None:
        outcome = await one(engine, encode(SMALL.resize((90, 60))))
        assert outcome.error is not None
        assert outcome.error.reason == "PIXEL_LIMIT"
        assert decoder.given == []

    on_road(work, limits=ImageLimits(max_pixels=5000))


@pytest.mark.parametrize("change", ["flip", "roll", "zeros_like"])
def test_a_decoder_that_disagrees_is_not_used(change: str, caplog: pytest.LogCaptureFixture) -> None:
    decoder = Hand()
    decoder.change = {
        "flip": lambda planes: planes.flip(0),  # blue for red
        "roll": lambda planes: planes.roll(2, 1),
        "zeros_like": torch.zeros_like,
    }[change]

    async def work(engine: Engine, decoder: Hand) -> None:
        assert (await one(engine, JPEG)).error is None
        assert decoder.given == []
        assert engine.decodes_on == ""

    on_road(work, decoder)
    assert "tiny are decoded on the CPU" in caplog.text
    assert "0.995" in caplog.text


def test_a_decoder_that_fails_at_its_trial_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    decoder = Hand()
    decoder.fault = lambda file: True

    async def work(engine: Engine, decoder: Hand) -> None:
        assert (await one(engine, JPEG)).error is None
        assert decoder.given == []

    on_road(work, decoder)
    assert "tiny are decoded on the CPU: cpu does not decode it" in caplog.text


def test_before_its_trial_it_is_not_used() -> None:
    async def run() -> None:
        decoder = Hand()
        async with running(gpu_decoder=decoder) as engine:
            assert (await one(engine, JPEG)).error is None
        assert decoder.given == []

    asyncio.run(run())


def test_a_decoder_that_hangs_is_left_and_no_image_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    async def work(engine: Engine, decoder: Hand) -> None:
        decoder.hold = threading.Event()
        outcomes = await engine.embed([encode(SMALL, quality=q) for q in range(50, 58)], [])
        assert [outcome.error for outcome in outcomes] == [None] * 8
        asked = len(decoder.given)
        assert (await one(engine, JPEG)).error is None
        assert len(decoder.given) == asked
        decoder.hold.set()

    on_road(work, stall_seconds=0.3, cache_bytes=1 << 20)
    assert "was silent for 0.3 s" in caplog.text


def test_a_gpu_that_refuses_all_work_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    async def work(engine: Engine, decoder: Hand) -> None:
        decoder.lost = True
        assert (await one(engine, JPEG)).error is None
        asked = len(decoder.given)
        assert (await one(engine, JPEG)).error is None
        assert len(decoder.given) == asked

    on_road(work)
    assert "refuses all further work" in caplog.text


def test_an_engine_that_ends_decodes_what_it_has() -> None:
    async def run() -> None:
        decoder = Hand()
        async with running(gpu_decoder=decoder) as engine:
            await engine.try_out()
            decoder.given.clear()
            decoder.hold = threading.Event()
            decoder.fault = lambda file: True
            call = asyncio.create_task(one(engine, JPEG))
            await eventually(lambda: bool(decoder.given))
            closing = asyncio.create_task(engine.close())
            await asyncio.sleep(0.1)
            decoder.hold.set()
            await closing
            assert (await call).error is None

    asyncio.run(run())


def test_a_server_without_a_gpu_refuses_to_decode_on_one() -> None:
    with pytest.raises(ConfigInvalid, match="gpu_decode: the device is 'cpu'"):
        make_engine(Settings(device="cpu", gpu_decode=True), {})


@pytest.mark.parametrize(("asked", "state"), [(True, "fail"), (False, "ok")])
def test_the_doctor_says_whether_it_can_be_had(asked: bool, state: str) -> None:
    finding = _finding("gpu decode", machine.gpu_decode, Settings(device="cpu", gpu_decode=asked))
    assert finding.state == state
    assert "CPU" in finding.message or "'cpu'" in finding.message


def test_a_torchvision_that_decodes_nothing_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_decoding, "device_names", lambda wish: ["cuda:0"])
    monkeypatch.setattr(
        GpuDecoder, "_planes", lambda self, files: exec("raise RuntimeError('no nvJPEG\\nat 0x7f')")
    )
    with pytest.raises(ConfigInvalid, match=r"decodes no JPEG on cuda:0 \(no nvJPEG\)\. Install"):
        gpu_decoder("cuda")
