"""Results that are kept, and identical images that share one computation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from engines import eventually, one, running
from lookalike_server.cache import ResultCache
from lookalike_server.device import Device
from lookalike_server.jobs import Call, Job
from lookalike_server.served import Model
from photos import encode, photo
from serving import SlowDevice, SpoiledDevice, TinyModel

MIB = 1 << 20


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    return encode(photo("chelsea"))


def test_an_image_that_is_known_is_not_computed_again(jpeg: bytes) -> None:
    async def main() -> None:
        device = SlowDevice()
        device.open()
        async with running(device, cache_bytes=MIB) as engine:
            first, second = await one(engine, jpeg), await one(engine, jpeg)
            assert (first.origin, second.origin) == ("computed", "cached")
            np.testing.assert_array_equal(first.descriptors["tiny"], second.descriptors["tiny"])
            assert first.digest == second.digest
            assert (second.width, second.height) == photo("chelsea").size
            assert (second.decode_s, second.device_s) == (0, 0)
            assert device.batches == [1]
            assert engine.statistics().cache.hits == 1

    asyncio.run(main())


def test_identical_images_on_the_road_are_computed_once(jpeg: bytes) -> None:
    async def main() -> None:
        device = SlowDevice()
        async with running(device, cache_bytes=MIB) as engine:
            calls = [asyncio.create_task(one(engine, jpeg)) for _ in range(5)]
            await eventually(lambda: engine.statistics().cache.shared == 4)
            device.open()
            outcomes = await asyncio.gather(*calls)
            assert sorted(outcome.origin for outcome in outcomes) == ["computed", *["shared"] * 4]
            assert len({outcome.descriptors["tiny"].tobytes() for outcome in outcomes}) == 1
            assert all(outcome.digest for outcome in outcomes)
            assert device.batches == [1]
            assert (engine.room.images, engine.room.bytes) == (0, 0)

    asyncio.run(main())


def test_a_leader_who_leaves_takes_nobody_with_him(jpeg: bytes) -> None:
    async def main() -> None:
        device = SlowDevice()
        async with running(device, cache_bytes=MIB) as engine:
            busy = asyncio.create_task(one(engine, encode(photo("coffee"))))
            await eventually(lambda: device.batches == [1])
            leader = asyncio.create_task(one(engine, jpeg))
            await eventually(lambda: engine.decoded == 1)
            follower = asyncio.create_task(one(engine, jpeg))
            await eventually(lambda: engine.statistics().cache.shared == 1)
            leader.cancel()
            await asyncio.sleep(0)
            device.open()
            outcome = await follower
            assert outcome.error is None
            assert outcome.descriptors["tiny"].shape == (8,)
            await busy
            await eventually(lambda: engine.room.images == 0)

    asyncio.run(main())


def test_work_for_which_everybody_has_left_is_dropped(jpeg: bytes) -> None:
    async def main() -> None:
        device = SlowDevice()
        async with running(device, cache_bytes=MIB) as engine:
            busy = asyncio.create_task(one(engine, encode(photo("coffee"))))
            await eventually(lambda: device.batches == [1])
            calls = [asyncio.create_task(one(engine, jpeg)) for _ in range(3)]
            await eventually(lambda: engine.statistics().cache.shared == 2)
            for call in calls:
                call.cancel()
            await asyncio.sleep(0)
            device.open()
            await busy
            await eventually(lambda: engine.room.images == 0)
            assert device.batches == [1]

    asyncio.run(main())


def test_a_fault_of_the_image_is_shared(jpeg: bytes) -> None:
    async def main() -> None:
        async with running(cache_bytes=MIB) as engine:
            outcomes = await engine.embed([jpeg[:2000]] * 4 + [jpeg], [])
            reasons = [outcome.error.reason if outcome.error else "" for outcome in outcomes]
            assert reasons == ["IMAGE_TRUNCATED"] * 4 + [""]
            assert engine.statistics().cache.entries == 1

    asyncio.run(main())


def test_a_fault_of_the_batch_is_not_shared(jpeg: bytes) -> None:
    def fail_once() -> Callable[[dict[str, Any]], dict[str, Any]]:
        faults = [RuntimeError("once")]

        def spoil(answer: dict[str, Any]) -> dict[str, Any]:
            if faults:
                raise faults.pop()
            return answer

        return spoil

    async def main() -> None:
        async with running(SpoiledDevice(fail_once()), cache_bytes=MIB) as engine:
            outcomes = await engine.embed([jpeg] * 3, [])
            reasons = sorted(outcome.error.reason if outcome.error else "" for outcome in outcomes)
            assert reasons == ["", "", "INTERNAL"]

    asyncio.run(main())


def test_nobody_waits_behind_bulk(jpeg: bytes) -> None:
    async def main() -> None:
        device = SlowDevice()
        async with running(device, cache_bytes=MIB) as engine:
            bulk = asyncio.create_task(one(engine, jpeg, wait=True))
            await eventually(lambda: device.batches == [1])
            interactive = asyncio.create_task(one(engine, jpeg))
            await eventually(lambda: engine.decoded == 1)
            device.open()
            assert [(await bulk).origin, (await interactive).origin] == ["computed", "computed"]

    asyncio.run(main())


def test_pixels_of_another_shape_are_another_image() -> None:
    async def main() -> None:
        pixels = np.random.default_rng(3).integers(0, 256, (8, 32, 3), np.uint8)
        async with running(cache_bytes=MIB) as engine:
            wide, high = await one(engine, pixels), await one(engine, pixels.reshape(32, 8, 3))
            assert high.origin == "computed"
            assert not np.array_equal(wide.descriptors["tiny"], high.descriptors["tiny"])

    asyncio.run(main())


def test_without_a_cache_every_image_is_computed(jpeg: bytes) -> None:
    async def main() -> None:
        async with running(cache_bytes=0) as engine:
            outcomes = await engine.embed([jpeg] * 3, [])
            assert [outcome.origin for outcome in outcomes] == ["computed"] * 3

    asyncio.run(main())


MODEL = Model([Device([TinyModel()])], 0)


def known(cache: ResultCache, name: str) -> str:
    """Whether the result of an image is known; if not it is computed and kept."""
    call = Call(done=None, pending=1, bulk=False)  # type: ignore[arg-type]
    job = Job(call, b"", MODEL, 1, digest=name.encode())
    origin = cache.meet(job)
    if origin == "computed":
        job.outcome.descriptors = {"tiny": np.zeros(128, np.float32)}
    cache.settle(job)
    return origin


def test_the_cache_holds_no_more_than_it_may_and_forgets_what_was_used_longest_ago() -> None:
    cache = ResultCache(2100)  # two results of 512 bytes, with what they cost besides
    assert [known(cache, name) for name in "abacab"] == [
        "computed",
        "computed",
        "cached",
        "computed",
        "cached",
        "computed",
    ]
    assert cache.statistics().bytes <= 2100
    assert cache.statistics().entries == 2
    assert cache.statistics().evicted == 2
