"""The rooms of the engine alone: door, line, device."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lookalike_server.admission import Room
from lookalike_server.batcher import Line
from lookalike_server.device import Device, device_name
from lookalike_server.errors import ConfigInvalid
from lookalike_server.jobs import Batch, Call, Job
from serving import TinyModel


def job(name: str, *, bulk: bool = False, model: int = 0) -> Job:
    return Job(Call(done=None, pending=1, bulk=bulk), name.encode(), model, size=1)  # type: ignore[arg-type]


def names(taken: list[Job] | Batch | None) -> list[str]:
    jobs = taken.jobs if isinstance(taken, Batch) else taken
    return [bytes(job.source).decode() for job in jobs or []]


def test_a_batch_takes_all_that_waits_interactive_first() -> None:
    line = Line()
    line.put([job("a", bulk=True), job("b", bulk=True), job("c")])
    assert names(line.take_batch(2)) == ["c", "a"]
    assert names(line.take_batch(2)) == ["b"]


def test_a_batch_is_of_one_model_and_the_others_keep_their_order() -> None:
    line = Line()
    line.put([job("a"), job("b", model=1), job("c", model=1), job("d")])
    assert names(line.take_batch(9)) == ["a", "d"]
    assert names(line.take_batch(9)) == ["b", "c"]


def test_a_share_never_mixes_interactive_with_bulk() -> None:
    line = Line()
    line.put([job("a", bulk=True), job("b"), job("c")])
    assert names(line.take_share(8, takers=1)) == ["b", "c"]
    assert names(line.take_share(8, takers=1)) == ["a"]


def test_takers_share_what_waits() -> None:
    line = Line()
    line.put(job(name) for name in "abcde")
    assert names(line.take_share(8, takers=2)) == ["a", "b", "c"]
    assert names(line.take_share(8, takers=2)) == ["d"]


def test_bulk_goes_on_under_any_interactive_load() -> None:
    line = Line()
    line.put([job("bulk", bulk=True)])
    taken = []
    for turn in range(10):
        line.put([job(f"{turn}a"), job(f"{turn}b")])
        taken += names(line.take_batch(1))
    assert "bulk" in taken


def test_a_closed_line_gives_what_is_left_and_then_nothing() -> None:
    line = Line()
    line.put([job("a")])
    line.close()
    assert names(line.take_batch(2)) == ["a"]
    assert line.take_batch(2) is None
    assert line.take_share(2, takers=1) is None


def test_a_full_room_refuses_and_has_room_again_when_one_leaves() -> None:
    room = Room(2, 100)
    assert room.enter(2, 10)
    assert not room.enter(1, 10)
    room.leave(1, 5)
    assert room.enter(1, 95)
    assert not room.enter(1, 1)


def test_what_is_larger_than_the_room_enters_an_empty_one() -> None:
    assert Room(2, 100).enter(50, 5000)


def test_those_who_wait_enter_in_the_order_they_came() -> None:
    async def main() -> list[str]:
        room, entered = Room(4, 1000), []
        room.enter(4, 4)

        async def wait(name: str, images: int) -> None:
            await room.wait(images, images)
            entered.append(name)

        tasks = [asyncio.create_task(wait(name, images)) for name, images in [("large", 3), ("small", 1)]]
        await asyncio.sleep(0)
        room.leave(3, 3)
        await asyncio.sleep(0)
        assert entered == []  # small would fit, but it is large's turn
        room.leave(1, 1)
        await asyncio.sleep(0)
        room.leave(3, 3)
        await asyncio.gather(*tasks)
        return entered

    assert asyncio.run(main()) == ["large", "small"]


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=20))
def test_whoever_gives_up_waiting_takes_no_room(callers: list[tuple[int, bool]]) -> None:
    async def main() -> None:
        room = Room(8, 1000)
        room.enter(8, 8)
        tasks = [asyncio.create_task(room.wait(images, images)) for images, _ in callers]
        await asyncio.sleep(0)
        for task, (_, leaves) in zip(tasks, callers, strict=True):
            if leaves:
                task.cancel()
        room.leave(8, 8)
        for task, (images, leaves) in zip(tasks, callers, strict=True):
            if not leaves:
                await task
                room.leave(images, images)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (room.images, room.bytes) == (0, 0)

    asyncio.run(main())


class CrampedDevice(Device):
    """Has memory for two images."""

    def _forward(self, model: int, pixels: Sequence[Any]) -> dict[str, Any]:
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("no memory")
        return super()._forward(model, pixels)


def pixels(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(1).integers(0, 256, (count, 16, 16, 3), np.uint8))


def test_a_batch_too_large_for_the_memory_is_halved() -> None:
    whole = Device([TinyModel()]).run(0, pixels(7))["tiny"]
    halved = CrampedDevice([TinyModel()]).run(0, pixels(7))["tiny"]
    np.testing.assert_allclose(halved, whole, atol=1e-6)


def test_another_error_of_the_device_is_not_tried_again() -> None:
    wrong = [np.zeros((16, 16, 4), np.uint8)] * 4
    with pytest.raises(RuntimeError, match="channels"):
        Device([TinyModel()]).run(0, wrong)


def test_the_cpu_is_always_there() -> None:
    assert device_name("cpu") == "cpu"
    assert device_name("auto") == ("cuda:0" if torch.cuda.is_available() else "cpu")


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="cuda:99"):
        device_name("cuda:99")
