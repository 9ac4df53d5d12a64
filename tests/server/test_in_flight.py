"""Two batches in flight, as the engine sees them, on a GPU made by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from engines import eventually, one, running
from gpus import HandGpu, pixels
from lookalike_server.device import Device
from lookalike_server.engine import Engine
from lookalike_server.errors import DeviceStalled
from lookalike_server.jobs import Outcome
from lookalike_server.served import Served
from serving import TinyModel, recipes_of

PIXELS = pixels(16)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """In batches of two, as most tests compute them."""
    device = Device([TinyModel()])
    return np.concatenate([device.run(0, PIXELS[at : at + 2])["tiny"] for at in range(0, len(PIXELS), 2)])


def described(outcomes: Sequence[Outcome]) -> list[np.ndarray]:
    return [outcome.descriptors["tiny"] for outcome in outcomes]


def held(gpu: HandGpu) -> threading.Event:
    """Lets it compute nothing until this is set."""
    gpu.streams.computing.go.clear()
    return gpu.streams.computing.go


async def both_begun(gpu: HandGpu, engine: Engine, waiting: int = 0) -> None:
    await eventually(lambda: gpu.begun == [2, 2] and engine.decoded == waiting)


def test_a_batch_is_begun_while_another_is_computed_and_no_third(expected: np.ndarray) -> None:
    async def main() -> None:
        gpu = HandGpu()
        async with running(gpu, max_batch=2) as engine:
            go = held(gpu)
            call = asyncio.create_task(engine.embed(PIXELS, [], wait=True))
            await both_begun(gpu, engine, waiting=12)
            await asyncio.sleep(0.05)
            assert gpu.begun == [2, 2]
            assert not gpu.streams.spans
            go.set()
            np.testing.assert_array_equal(described(await call), expected)

    asyncio.run(main())


def test_the_device_does_not_wait_while_the_next_batch_is_begun() -> None:
    async def idle(at_once: int) -> float:
        gpu = HandGpu(seconds=0.06, begin_seconds=0.02)
        gpu.at_once = at_once
        async with running(gpu, max_batch=2) as engine:
            await engine.embed(PIXELS, [], wait=True)
        starts, ends = zip(*gpu.streams.spans, strict=True)
        return float(np.median(np.subtract(starts[1:], ends[:-1])))

    assert asyncio.run(idle(1)) > 0.019
    assert asyncio.run(idle(2)) < 0.010


def test_the_next_batch_is_formed_late_so_that_an_interactive_caller_is_in_it() -> None:
    async def main() -> None:
        gpu = HandGpu(seconds=0.2)
        async with running(gpu, max_batch=4) as engine:
            bulk = asyncio.create_task(engine.embed(PIXELS, [], wait=True))
            await eventually(lambda: len(gpu.begun) == 1)
            await asyncio.sleep(0.05)
            assert len(gpu.begun) == 1
            await one(engine, PIXELS[0])
            assert len(gpu.streams.spans) == 2  # the batch that ran, and the next
            bulk.cancel()

    asyncio.run(main())


def test_receipts_and_learned_costs_count_each_second_once() -> None:
    async def main() -> None:
        gpu = HandGpu(seconds=0.04)
        async with running(gpu, max_batch=2) as engine:
            outcomes = await engine.embed(PIXELS, [], wait=True)
            starts, ends = zip(*gpu.streams.spans, strict=True)
            each = float(np.median(np.subtract(ends, starts)))
            assert np.median([outcome.device_s for outcome in outcomes]) == pytest.approx(each, rel=0.4)
            assert sum(outcome.device_s for outcome in outcomes[::2]) < ends[-1] - starts[0] + 0.1
            assert 0.04 <= engine.served.models[0].cost.seconds(2) < 2 * each
            waits = [outcome.queue_s for outcome in outcomes[::2]]
            assert waits == sorted(waits)

    asyncio.run(main())


def test_a_wrong_first_impression_of_a_fast_device_is_unlearned() -> None:
    async def main() -> None:
        gpu = HandGpu(seconds=0.2)
        async with running(gpu, max_batch=2) as engine:
            gpu.streams.seconds = 0.01
            for _ in range(3):
                await engine.embed(PIXELS, [], wait=True)
            assert engine.served.models[0].cost.seconds(2) < 0.06

    asyncio.run(main())


def test_a_batch_that_was_begun_beside_another_waits_until_that_has_ended() -> None:
    async def main() -> None:
        gpu = HandGpu()
        async with running(gpu, max_batch=2) as engine:
            go = held(gpu)
            call = asyncio.create_task(engine.embed(PIXELS[:4], [], wait=True))
            await both_begun(gpu, engine)
            gpu.streams.seconds = 0.3
            go.set()
            first, _, second, _ = await call
            assert first.device_s == pytest.approx(0.3, abs=0.15)
            assert second.device_s == pytest.approx(0.3, abs=0.15)
            assert second.queue_s - first.queue_s == pytest.approx(0.3, abs=0.15)

    asyncio.run(main())


def test_what_is_left_counts_both_batches() -> None:
    async def main() -> None:
        gpu = HandGpu(seconds=0.1)
        async with running(gpu, max_batch=2) as engine:
            go = held(gpu)
            call = asyncio.create_task(engine.embed(PIXELS[:4], [], wait=True))
            await both_begun(gpu, engine)
            assert 0.09 < engine.replicas[0].seconds_left() < 0.2
            await asyncio.sleep(0.15)
            assert engine.replicas[0].seconds_left() == pytest.approx(0.1, abs=0.01)
            go.set()
            await call
            assert engine.replicas[0].seconds_left() == 0.0

    asyncio.run(main())


def test_a_batch_that_fails_leaves_the_one_behind_it_alone(expected: np.ndarray) -> None:
    async def main() -> None:
        gpu = HandGpu()
        async with running(gpu, max_batch=2) as engine:
            go = held(gpu)
            original, failing = gpu.models[0].forward, [RuntimeError("wrong kernel")]

            def forward(pixels: Any) -> Any:
                if failing:
                    raise failing.pop()
                return original(pixels)

            gpu.models[0].forward = forward  # type: ignore[method-assign]
            call = asyncio.create_task(engine.embed(PIXELS[:4], [], wait=True))
            await both_begun(gpu, engine)
            go.set()
            first, second = (await call)[:2], (await call)[2:]
            assert [outcome.error.reason for outcome in first if outcome.error] == ["INTERNAL"] * 2
            np.testing.assert_array_equal(described(second), expected[2:4])

    asyncio.run(main())


def test_a_device_that_is_lost_fails_both_batches() -> None:
    async def main() -> None:
        gpu = HandGpu()
        async with running(gpu, max_batch=2, stall_seconds=0.4) as engine:
            go = held(gpu)
            call = asyncio.create_task(engine.embed(PIXELS[:4], [], wait=True))
            await both_begun(gpu, engine)
            gpu.streams.fault, gpu.lost = "CUDA error: unspecified launch failure", True
            go.set()
            assert {outcome.error.reason for outcome in await call if outcome.error} == {"INTERNAL"}
            await asyncio.wait_for(engine.broken.wait(), 10)

    asyncio.run(main())


def test_a_device_that_hangs_sends_the_callers_of_both_batches_away_and_recovers(
    expected: np.ndarray,
) -> None:
    async def main() -> None:
        gpu = HandGpu()
        async with running(gpu, max_batch=2, canary_seconds=0.5, stall_seconds=0.2) as engine:
            await engine.try_out()
            gpu.begun.clear()
            go = held(gpu)
            calls = [asyncio.create_task(one(engine, image, wait=True)) for image in PIXELS[:5]]
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(fault, DeviceStalled) for fault in ended)
            assert len(engine.replicas[0].running) == 2
            assert not engine.health().ready
            go.set()
            await eventually(lambda: engine.health().ready)
            await eventually(lambda: engine.room.images == 0)
            outcomes = await engine.embed(PIXELS[:2], [])
            np.testing.assert_array_equal(described(outcomes), expected[:2])

    asyncio.run(main())


def test_a_second_batch_is_not_taken_to_hang_while_the_first_is_computed() -> None:
    async def main() -> None:
        gpu = HandGpu()
        async with running(gpu, max_batch=2, stall_seconds=0.65) as engine:
            gpu.streams.seconds = 0.4
            outcomes = await engine.embed(PIXELS[:4], [], wait=True)
            assert gpu.begun == [2, 2]
            assert {outcome.error for outcome in outcomes} == {None}

    asyncio.run(main())


def test_a_stage_that_dies_with_two_batches_in_hand_is_back_and_all_get_a_status(
    monkeypatch: pytest.MonkeyPatch, expected: np.ndarray
) -> None:
    async def main() -> None:
        gpu = HandGpu()
        async with running(gpu, max_batch=2) as engine:
            replica, deaths = engine.replicas[0], [MemoryError()]
            original = replica._finish

            def dying(flight: Any) -> None:
                if deaths:
                    raise deaths.pop()
                original(flight)

            monkeypatch.setattr(replica, "_finish", dying)
            held(gpu)
            lost = await engine.embed(PIXELS[:4], [], wait=True)
            assert [outcome.error.reason for outcome in lost if outcome.error] == ["INTERNAL"] * 4
            gpu.streams.computing.go.set()
            outcomes = await engine.embed(PIXELS, [], wait=True)
            np.testing.assert_array_equal(described(outcomes), expected)
            assert sum(engine.statistics().restarts.values()) == 1
            assert engine.room.images == 0

    asyncio.run(main())


def test_closing_finishes_what_is_in_flight(expected: np.ndarray) -> None:
    async def main() -> None:
        gpu = HandGpu()
        engine = Engine(recipes_of(gpu), gpu, max_batch=2)
        await engine.start()
        go = held(gpu)
        call = asyncio.create_task(engine.embed(PIXELS[:8], [], wait=True))
        await both_begun(gpu, engine, waiting=4)
        closing = asyncio.create_task(engine.close())
        await asyncio.sleep(0.05)
        go.set()
        await asyncio.wait_for(closing, 10)
        np.testing.assert_array_equal(described(await call), expected[:8])

    asyncio.run(main())


def test_models_that_are_served_no_more_end_what_they_have_in_flight(expected: np.ndarray) -> None:
    async def main() -> None:
        gpu = HandGpu(TinyModel(), TinyModel("other"))
        async with running(gpu, max_batch=2) as engine:
            old, new = engine.served.models
            engine.serve(Served({"tiny": engine.recipes["tiny"]}, [old]))
            go = held(gpu)
            before = asyncio.create_task(engine.embed(PIXELS[:2], []))
            await eventually(lambda: gpu.begun == [2])
            engine.serve(Served({"other": recipes_of(gpu)["other"]}, [new]))
            after = asyncio.create_task(engine.embed(PIXELS[2:6], []))
            await eventually(lambda: engine.decoded == 4)
            go.set()
            np.testing.assert_array_equal(described(await before), expected[:2])
            rows = [outcome.descriptors["other"] for outcome in await after]
            np.testing.assert_array_equal(rows, expected[2:6])

    asyncio.run(main())


def test_canaries_go_alone_beside_a_batch_in_flight() -> None:
    async def main() -> None:
        gpu = HandGpu()
        async with running(gpu, max_batch=2) as engine:
            go = held(gpu)
            call = asyncio.create_task(engine.embed(PIXELS[:2], [], wait=True))
            await eventually(lambda: gpu.begun == [2])
            probe = asyncio.create_task(engine.try_out())
            await asyncio.sleep(0.05)
            go.set()
            await asyncio.gather(call, probe)
            assert gpu.begun == [2, 1]

    asyncio.run(main())


def test_what_waits_goes_to_a_replica_that_is_free_and_not_behind_a_batch() -> None:
    async def main() -> None:
        busy, free = HandGpu(), HandGpu()
        async with running(busy, free, max_batch=2) as engine:
            for gpu in (busy, free):
                held(gpu)
            calls = [asyncio.create_task(engine.embed(PIXELS[:2], [], wait=True))]
            await eventually(lambda: len(busy.begun + free.begun) == 1)
            calls.append(asyncio.create_task(engine.embed(PIXELS[2:4], [], wait=True)))
            await eventually(lambda: len(busy.begun) == len(free.begun) == 1)
            for gpu in (busy, free):
                gpu.streams.computing.go.set()
            await asyncio.gather(*calls)

    asyncio.run(main())
