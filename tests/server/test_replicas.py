"""Several devices that compute from one line."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import eventually, one, running
from lookalike.cli.app import run
from lookalike_server.batcher import Line, Taker
from lookalike_server.config import Settings
from lookalike_server.device import Device, device_names, threads
from lookalike_server.devices import check_alike
from lookalike_server.errors import ConfigInvalid, DeviceStalled
from lookalike_server.jobs import Call, Job
from lookalike_server.replicas import names_of
from operated import free_address, operated, scraped
from photos import encode, photo
from serving import SlowDevice, TinyModel


@pytest.fixture(scope="module")
def good() -> list[bytes]:
    return [encode(photo(name).resize((60, 50))) for name in ("chelsea", "coffee", "astronaut", "rocket")]


class Moody(Device):
    """Does what it is told to.

    Attributes:
        mood: "well", "fails", "lost" or "hangs", the last until it is let go.
    """

    def __init__(self) -> None:
        super().__init__([TinyModel()])
        self.mood, self.let_go, self.images = "well", threading.Event(), 0

    def warm_up(self) -> list[list[tuple[int, float]]]:
        return []

    def usable(self) -> bool:
        return self.mood != "lost"

    def run(self, model: int, pixels: Sequence[Any]) -> dict[str, Any]:
        self.images += len(pixels)
        if self.mood in ("fails", "lost"):
            raise RuntimeError("a device's own fault")
        if self.mood == "hangs":
            self.let_go.wait(20)
        return super().run(model, pixels)


def job(name: str, replica: int | None = None) -> Job:
    call = Call(done=None, pending=1, bulk=False)  # type: ignore[arg-type]
    return Job(call, name.encode(), 0, size=1, replica=replica)  # type: ignore[arg-type]


def taken(line: Line, takers: Sequence[Taker], jobs: Sequence[Job]) -> list[list[str]]:
    """What takers get who all wait when the jobs come."""
    line.enrol(takers)
    got: list[list[str]] = [[] for _ in takers]

    def take(taker: Taker) -> None:
        batch = line.take_batch(32, taker=taker)
        got[taker.number] = [bytes(each.source).decode() for each in batch.jobs] if batch else []

    waiting = [threading.Thread(target=take, args=(taker,)) for taker in takers]
    for thread in waiting:
        thread.start()
    while len(line._free) < len(takers):
        pass
    line.put(jobs)
    line.close()
    for thread in waiting:
        thread.join()
    return got


def test_replicas_that_are_free_share_what_waits() -> None:
    got = taken(Line(), [Taker(0), Taker(1)], [job(name) for name in "abcdef"])
    assert sorted(map(len, got)) == [3, 3]
    assert sorted(got[0] + got[1]) == list("abcdef")


def test_who_rests_leaves_all_to_others_but_what_is_meant_for_him() -> None:
    resting = Taker(1, rests=lambda: True)
    got = taken(Line(), [Taker(0), resting], [*map(job, "abc"), job("canary", replica=1)])
    assert got == [["a", "b", "c"], ["canary"]]


def test_two_replicas_run_at_the_same_time_and_answer_as_one(good: list[bytes]) -> None:
    async def main() -> None:
        async with running() as engine:
            alone = [outcome.descriptors["tiny"] for outcome in await engine.embed(good, [])]
        devices = SlowDevice(), SlowDevice()
        async with running(*devices) as engine:
            together = asyncio.create_task(engine.embed(good, []))
            for device in devices:
                assert await asyncio.to_thread(device.entered.acquire, timeout=10)
            for device in devices:
                device.open()
            for outcome, expected in zip(await together, alone, strict=True):
                np.testing.assert_array_equal(outcome.descriptors["tiny"], expected)
            assert sum(sum(device.batches) for device in devices) == len(good)

    asyncio.run(main())


def test_a_replica_that_fails_fast_does_not_draw_all_work_to_itself(good: list[bytes]) -> None:
    async def main() -> None:
        well, ill = Moody(), Moody()
        async with running(well, ill, canary_seconds=1) as engine:
            await engine.try_out()
            ill.mood = "fails"
            while not engine.replicas[1].trouble:
                await engine.embed(good, [])
            assert not engine.health().replicas["cpu/1"].ready
            outcomes = [await one(engine, image) for image in good * 5]
            assert {outcome.error for outcome in outcomes} == {None}
            assert engine.health().ready
            ill.mood = "well"
            await eventually(lambda: engine.health().replicas["cpu/1"].ready)
            before = ill.images
            while ill.images == before:
                assert {outcome.error for outcome in await engine.embed(good, [])} == {None}

    asyncio.run(main())


def test_a_model_that_fails_everywhere_makes_no_replica_rest(good: list[bytes]) -> None:
    async def main() -> None:
        devices = Moody(), Moody()
        async with running(*devices, canary_seconds=1) as engine:
            await engine.try_out()
            for device in devices:
                device.mood = "fails"
            assert (await one(engine, good[0])).error is not None
            await eventually(lambda: not engine.health().ready)
            assert (await asyncio.wait_for(one(engine, good[0]), 10)).error is not None
            for device in devices:
                device.mood = "well"
            await eventually(lambda: engine.health().ready)

    asyncio.run(main())


def test_a_replica_that_hangs_stops_no_other(good: list[bytes]) -> None:
    async def main() -> None:
        well, ill = Moody(), Moody()
        async with running(well, ill, canary_seconds=1, stall_seconds=0.2) as engine:
            await engine.try_out()
            ill.mood = "hangs"
            calls = [asyncio.create_task(one(engine, image)) for image in good * 5]
            ended = await asyncio.gather(*calls, return_exceptions=True)
            hung = [outcome for outcome in ended if isinstance(outcome, DeviceStalled)]
            assert len(hung) < len(calls)
            await eventually(lambda: not engine.health().replicas["cpu/1"].ready)
            assert {(await one(engine, image)).error for image in good * 5} == {None}
            await asyncio.sleep(1.5)  # longer than a lone device may be silent
            assert engine.health().ready
            assert not engine.broken.is_set()
            ill.mood = "well"
            ill.let_go.set()
            await eventually(lambda: engine.health().replicas["cpu/1"].ready)
            await eventually(lambda: engine.room.images == 0)

    asyncio.run(main())


def test_a_lost_replica_leaves_the_others_and_the_last_one_ends_the_process(good: list[bytes]) -> None:
    async def main() -> None:
        first, second = Moody(), Moody()
        async with running(first, second, canary_seconds=1, stall_seconds=1) as engine:
            await engine.try_out()
            second.mood = "lost"
            await eventually(lambda: not engine.health().replicas["cpu/1"].ready)
            assert {(await one(engine, image)).error for image in good * 5} == {None}
            assert engine.health().ready
            assert not engine.broken.is_set()
            first.mood = "lost"
            assert (await one(engine, good[0])).error is not None
            await asyncio.wait_for(engine.broken.wait(), 10)

    asyncio.run(main())


def test_metrics_and_status_tell_of_each_replica(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, socket = free_address(), f"unix:{tmp_path}/admin"
    places = {"metrics_address": address, "admin_address": socket}
    with operated(monkeypatch, tmp_path, Moody(), Moody(), **places):
        told = scraped(address)
        assert run(["admin", "status", "--socket", socket]) == 0
    assert 'lookalike_replica_ready{replica="cpu/0"} 1.0' in told
    assert 'lookalike_replica_ready{replica="cpu/1"} 1.0' in told
    assert "cpu/0 ready, cpu/1 ready" in capsys.readouterr().out


def test_devices_are_named_once_and_their_replicas_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert device_names("cuda, cuda:1") == ["cuda:0", "cuda:1"]
    with pytest.raises(ConfigInvalid, match="names one device twice"):
        device_names("cuda,cuda:0")
    assert Settings(device="cuda:0,cuda:1").device == "cuda:0,cuda:1"
    assert names_of([Moody(), Moody()]) == ["cpu/0", "cpu/1"]
    assert names_of([Moody()]) == ["cpu"]


def test_replicas_on_the_cpu_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike_server.device.cores", lambda: 16)
    assert [threads("cpu", replicas).torch for replicas in (1, 2, 4, 16)] == [12, 6, 3, 2]


def test_a_device_that_computes_something_else_is_refused() -> None:
    other = TinyModel()
    other.convolutions[0].weight.data *= -1
    check_alike([Device([TinyModel()]), Device([TinyModel()])])
    with pytest.raises(ConfigInvalid, match="gives other descriptors than cpu"):
        check_alike([Device([TinyModel()]), Device([other])])


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux lists the threads of a process")
def test_a_device_uses_as_many_threads_as_were_set_and_no_more() -> None:
    before, more = torch.get_num_threads(), set[str]()

    def warm_up() -> None:
        there = set(os.listdir("/proc/self/task"))
        Device([TinyModel()]).warm_up()
        more.update(set(os.listdir("/proc/self/task")) - there)

    torch.set_num_threads(1)
    try:
        thread = threading.Thread(target=warm_up)
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert not more
