"""What the engine must survive: images, callers, overload, models and stages."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from engines import as_caller, eventually, one, running
from lookalike_extractor.errors import LookalikeError
from lookalike_extractor.images import decode
from lookalike_server.device import Device
from lookalike_server.engine import Engine
from lookalike_server.errors import DeadlineUnreachable, DeviceStalled, QueueFull
from lookalike_server.readiness import Health
from photos import encode, photo
from serving import SlowDevice, SpoiledDevice, TinyModel


@pytest.fixture(scope="module")
def good() -> list[bytes]:
    return [encode(photo(name)) for name in ("chelsea", "coffee", "astronaut", "rocket")]


class SteadyDevice(Device):
    """Takes the same time for each image, whatever else this machine does."""

    def __init__(self, seconds: float) -> None:
        super().__init__([TinyModel()])
        self.seconds = seconds
        self.images, self.busy = 0, 0.0

    def warm_up(self) -> list[list[tuple[int, float]]]:
        return [[(n, n * self.seconds) for n in (2, 2, 8)]]

    def run(self, model: int, pixels: Sequence[Any]) -> dict[str, Any]:
        started = time.monotonic()
        time.sleep(self.seconds * len(pixels))
        self.images += len(pixels)
        self.busy += time.monotonic() - started
        return {"tiny": np.full((len(pixels), 8), 8**-0.5, np.float32)}


class PairingDevice(SteadyDevice):
    """One image takes as long as two, as on a CPU."""

    def warm_up(self) -> list[list[tuple[int, float]]]:
        return [[(n, n * self.seconds) for n in (2, 4, 16)]]

    def run(self, model: int, pixels: Sequence[Any]) -> dict[str, Any]:
        time.sleep(self.seconds * (len(pixels) == 1))
        return super().run(model, pixels)


class HangingDevice(Device):
    """Hangs until it is let go."""

    def __init__(self) -> None:
        super().__init__([TinyModel()])
        self.hanging = threading.Event()
        self.let_go = threading.Event()

    def warm_up(self) -> list[list[tuple[int, float]]]:
        return []

    def run(self, model: int, pixels: Sequence[Any]) -> dict[str, Any]:
        if self.hanging.is_set():
            self.let_go.wait(20)
        return super().run(model, pixels)


# Images


BAD = {
    "text": b"this is not an image",
    "empty": b"",
    "cut": encode(photo("coffee"))[:3000],
    "garbled": encode(photo("coffee"))[:400] + bytes(4000),
    "no header": b"\xff\xd8\xff" + bytes(20),
    "pixel bomb": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (60_000).to_bytes(4) * 2 + b"\x08\x02" + bytes(7),
    "other format": b"%PDF-1.7 " + bytes(100),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_at_any_place_leaves_its_neighbours_alone_bit_for_bit(
    good: list[bytes], name: str
) -> None:
    async def main() -> None:
        async with running() as engine:
            alone = [outcome.descriptors["tiny"] for outcome in await engine.embed(good, [])]
            for place in range(len(good) + 1):
                outcomes = await engine.embed([*good[:place], BAD[name], *good[place:]], [])
                fault = outcomes.pop(place).error
                assert fault is not None
                assert fault.status == "INVALID_ARGUMENT"
                for outcome, expected in zip(outcomes, alone, strict=True):
                    np.testing.assert_array_equal(outcome.descriptors["tiny"], expected)

    asyncio.run(main())


def test_a_pixel_bomb_is_refused_from_its_header() -> None:
    async def main() -> None:
        async with running() as engine:
            outcomes = await engine.embed([BAD["pixel bomb"]] * 100, [])
            assert {outcome.error.reason for outcome in outcomes if outcome.error} == {"PIXEL_LIMIT"}
            assert all(outcome.decode_s == 0 for outcome in outcomes)

    asyncio.run(main())


# Callers


@pytest.mark.parametrize("stage", ["door", "decode", "line", "device"])
def test_a_caller_who_leaves_at_any_stage_leaves_nothing_behind(good: list[bytes], stage: str) -> None:
    pauses = {"door": 0, "decode": 1, "line": 5, "device": 40}

    async def main() -> None:
        async with running(cache_bytes=1 << 20) as engine:
            for number in range(60):
                calls = [
                    asyncio.create_task(engine.embed(good[: 1 + number % 4], [], wait=bool(number % 2)))
                    for _ in range(3)
                ]
                for _ in range(pauses[stage]):
                    await asyncio.sleep(0)
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
            await eventually(lambda: engine.room.images == 0)
            assert engine.room.bytes == 0
            assert not any(engine.statistics().waiting.values())
            assert (await one(engine, good[0])).error is None

    asyncio.run(main())


def test_a_deadline_that_has_passed_costs_nothing(good: list[bytes]) -> None:
    async def main() -> None:
        device = SlowDevice()
        async with running(device) as engine:
            with pytest.raises(DeadlineUnreachable):
                await as_caller(engine.embed(good, []), seconds=-1)
            assert engine.statistics().refused == {"DEADLINE_UNREACHABLE": 4}
            assert device.batches == []

    asyncio.run(main())


def test_a_deadline_that_cannot_be_met_is_refused_at_the_door(good: list[bytes]) -> None:
    async def main() -> None:
        async with running(SteadyDevice(0.05), max_batch=8) as engine:
            busy = [asyncio.create_task(engine.embed(good * 4, []))]
            await eventually(lambda: engine.room.images == 16)
            with pytest.raises(DeadlineUnreachable, match="would take") as caught:
                await as_caller(one_of(engine, good), seconds=0.3)
            assert float(caught.value.metadata["retry_after_ms"]) > 20
            patient = await as_caller(one_of(engine, good), seconds=30)
            assert patient[0].error is None
            await asyncio.gather(*busy)

    asyncio.run(main())


async def one_of(engine: Engine, good: list[bytes]) -> list[Any]:
    return await engine.embed(good[:1], [])


def test_a_call_without_a_deadline_has_the_servers(good: list[bytes]) -> None:
    async def main() -> None:
        device = SlowDevice()
        async with running(device, max_call_seconds=0.1) as engine:
            with pytest.raises(DeadlineUnreachable):
                await engine.embed(good, [])
            device.open()
            await eventually(lambda: engine.room.images == 0)

    asyncio.run(main())


def test_images_whose_deadline_passes_in_the_line_are_dropped(good: list[bytes]) -> None:
    async def main() -> None:
        device = SlowDevice()
        async with running(device) as engine:
            first = asyncio.create_task(one(engine, good[0]))
            await eventually(lambda: device.batches == [1])
            late = as_caller(engine.embed(good[1:], []), seconds=0.1)
            with pytest.raises(DeadlineUnreachable):
                await late
            device.open()
            await first
            await eventually(lambda: engine.room.images == 0)
            assert device.batches == [1]
            assert engine.statistics().done["dropped"] == 3

    asyncio.run(main())


# Overload


@pytest.mark.parametrize("times", [2, 10])
def test_under_overload_the_device_neither_waits_nor_works_in_vain(times: int) -> None:
    """Open loop: calls come at a fixed rate, whatever becomes of those before."""
    each, seconds, deadline = 0.01, 1.5, 0.3

    async def main() -> None:
        refusals: list[float] = []
        answers = 0

        async def call(engine: Engine) -> None:
            nonlocal answers
            started = time.monotonic()
            try:
                await as_caller(engine.embed([np.zeros((16, 16, 3), np.uint8)], []), seconds=deadline)
                answers += 1
            except (DeadlineUnreachable, QueueFull) as error:
                if "would take" in error.message or isinstance(error, QueueFull):
                    refusals.append(time.monotonic() - started)

        device = SteadyDevice(each)
        async with running(device, most_images=64) as engine:
            calls, started = [], time.monotonic()
            while (now := time.monotonic() - started) < seconds:
                due = int(now * times / each)
                calls += [asyncio.create_task(call(engine)) for _ in range(due - len(calls))]
                await asyncio.sleep(0.005)
            await asyncio.gather(*calls)
            elapsed = time.monotonic() - started
        # Goodput over the wire is measured by benchmarks/serving/overload.py.
        assert device.busy >= 0.85 * elapsed
        assert answers >= 0.85 * device.images
        assert len(refusals) > len(calls) / 4
        assert np.median(refusals) < 0.005

    asyncio.run(main())


def test_an_interactive_caller_hardly_notices_a_saturating_stream(good: list[bytes]) -> None:
    async def waits(engine: Engine, count: int) -> list[float]:
        taken = []
        for _ in range(count):
            started = time.monotonic()
            await one(engine, np.zeros((16, 16, 3), np.uint8))
            taken.append(time.monotonic() - started)
            await asyncio.sleep(0.003)
        return sorted(taken)

    async def main() -> None:
        async with running(PairingDevice(0.005), max_batch=32) as engine:
            alone = await waits(engine, 20)
            bulk = [
                asyncio.create_task(engine.embed([np.ones((16, 16, 3), np.uint8)] * 64, [], wait=True))
                for _ in range(12)
            ]
            await eventually(lambda: engine.decoded > 100)
            beside = await waits(engine, 20)
            assert any(not call.done() for call in bulk)
            for call in bulk:
                call.cancel()
        assert beside[10] < 3 * alone[10]  # twice, and this machine's noise

    asyncio.run(main())


# Models


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda answer: 1 / 0, "INTERNAL"),
        (lambda answer: {"tiny": answer["tiny"] * np.nan}, "INTERNAL"),
        (lambda answer: {"tiny": answer["tiny"][:0]}, "INTERNAL"),
    ],
    ids=["raises", "NaN", "too few rows"],
)
def test_a_model_that_fails_is_not_ready_until_it_answers_again(
    good: list[bytes], fault: Any, reason: str
) -> None:
    async def main() -> None:
        device = SpoiledDevice(lambda answer: answer)
        heard: list[Health] = []
        async with running(device, canary_seconds=0.2) as engine:
            await engine.try_out()
            engine.readiness.listeners.append(heard.append)
            assert engine.health().ready
            device.spoil = fault
            outcome = await one(engine, good[0])
            assert outcome.error is not None
            assert outcome.error.reason == reason
            assert not outcome.descriptors
            await eventually(lambda: bool(heard) and not heard[-1].ready)
            assert not engine.health().models["tiny"].ready
            device.spoil = lambda answer: answer
            await eventually(lambda: engine.health().ready)
            assert (await one(engine, good[0])).error is None
            assert [health.ready for health in heard][-2:] == [False, True]

    asyncio.run(main())


def test_a_server_whose_first_canary_fails_does_not_start() -> None:
    async def main() -> None:
        async with running(SpoiledDevice(lambda answer: {"tiny": answer["tiny"][:0]})) as engine:
            with pytest.raises(LookalikeError):
                await engine.try_out()

    asyncio.run(main())


def test_a_device_that_hangs_sends_its_callers_away_and_recovers(good: list[bytes]) -> None:
    async def main() -> None:
        device = HangingDevice()
        async with running(device, canary_seconds=0.2, stall_seconds=0.2) as engine:
            await engine.try_out()
            device.hanging.set()
            waiting = [asyncio.create_task(one(engine, image)) for image in good]
            faults = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(fault, DeviceStalled) for fault in faults)
            assert not engine.health().ready
            with pytest.raises(DeviceStalled):
                await one(engine, good[0])
            device.hanging.clear()
            device.let_go.set()
            await eventually(lambda: engine.health().ready)
            assert (await one(engine, good[0])).error is None
            await eventually(lambda: engine.room.images == 0)

    asyncio.run(main())


def test_a_device_that_never_comes_back_ends_the_process(good: list[bytes]) -> None:
    async def main() -> None:
        device = HangingDevice()
        async with running(device, stall_seconds=0.05) as engine:
            device.hanging.set()
            with pytest.raises(DeviceStalled):
                await one(engine, good[0])
            await asyncio.wait_for(engine.broken.wait(), 10)
            device.let_go.set()

    asyncio.run(main())


# Stages


@pytest.mark.parametrize("step", ["_hand_on", "_compute"])
def test_a_stage_that_dies_is_back_and_its_images_get_a_status(
    good: list[bytes], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async def main() -> None:
        async with running() as engine:
            stages: Any = engine._road.stages
            stages = stages.decoding if step == "_hand_on" else stages.replicas[0]
            original, deaths = getattr(stages, step), [MemoryError()]

            def dying(work: Any) -> None:
                if deaths:
                    raise deaths.pop()
                original(work)

            monkeypatch.setattr(stages, step, dying)
            lost = await one(engine, good[1])
            assert lost.error is not None
            assert lost.error.reason == "INTERNAL"
            assert "incident" in lost.error.metadata
            assert (await one(engine, good[2])).error is None
            assert sum(engine.statistics().restarts.values()) == 1
            assert engine.room.images == 0

    asyncio.run(main())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_decoder_that_hangs_is_replaced_and_only_its_image_fails(
    good: list[bytes], monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    let_go = threading.Event()

    def hanging(data: bytes, *arguments: Any, **options: Any) -> Any:
        if data == good[2]:
            let_go.wait(20)
        return decode(data, *arguments, **options)

    async def main() -> None:
        monkeypatch.setattr("lookalike_server.decoding.decode", hanging)
        async with running(stall_seconds=0.2, decode_threads=threads, cache_bytes=1 << 20) as engine:
            again = asyncio.create_task(one(engine, good[2]))
            outcomes = await asyncio.wait_for(engine.embed([*good, *good], []), 10)
            reasons = [outcome.error and outcome.error.reason for outcome in [*outcomes, await again]]
            stalled = "DECODE_STALLED"
            assert reasons == [None, None, stalled, None, None, None, stalled, None, stalled]
            assert (await one(engine, good[0])).error is None
            assert 1 <= sum(engine.statistics().restarts.values()) <= 3
            assert engine.room.images == 0
            let_go.set()
            await eventually(lambda: not engine._road.stages.decoding.left_behind())
            assert (await one(engine, good[1])).error is None
            assert not engine.broken.is_set()

    asyncio.run(main())


def test_an_observer_that_fails_harms_nobody(good: list[bytes]) -> None:
    class Failing:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("an observer's own fault")

    async def main() -> None:
        async with running() as engine:
            engine.tally.observers.append(Failing())
            assert (await one(engine, good[0])).error is None

    asyncio.run(main())
