"""Slow streams and overload over the real wire: who is slow or too much waits himself, all others go on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fronted import eventually
from lookalike.v1 import embedding_pb2, embedding_pb2_grpc
from lookalike_server.device import Device
from serving import Running, TinyModel, request, rows, serving

CALLERS = Path(__file__).resolve().parents[1] / "open_loop.py"
IMAGE = np.zeros((16, 16, 3), np.uint8)
# gRPC's buffers of a stream otherwise grow to some megabytes.
SMALL_WINDOW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 16)]
CHUNK = request(*[IMAGE] * 64)


class SteadyDevice(Device):
    """Takes the same time for each image, in batches of any size, whatever else this machine does."""

    seconds = 0.02

    def __init__(self) -> None:
        super().__init__([TinyModel()])

    def warm_up(self) -> list[list[tuple[int, float]]]:
        return [[(n, n * self.seconds) for n in (2, 2, 8)]]

    def run(self, model: int, pixels: Sequence[Any]) -> dict[str, Any]:
        time.sleep(self.seconds * len(pixels))
        return {"tiny": np.full((len(pixels), 8), 8**-0.5, np.float32)}


@pytest.fixture
def running() -> Iterator[Running]:
    with serving() as server:
        yield server


class Sender:
    """Chunks for a stream, counted as gRPC takes them."""

    def __init__(self, count: int) -> None:
        self.taken, self._count = 0, count
        self.go_on = threading.Event()
        self.go_on.set()

    def __iter__(self) -> Iterator[embedding_pb2.EmbedStreamRequest]:
        for number in range(self._count):
            self.taken = number
            yield embedding_pb2.EmbedStreamRequest(chunk_id=number, request=CHUNK)
            self.go_on.wait(20)

    def held_back(self) -> int:
        """Waits until no more are taken, and returns how many were."""
        before = -1
        while before != self.taken:
            before = self.taken
            time.sleep(0.5)
        return before


def slowest_of(running: Running, calls: int = 20) -> float:
    """Seconds of an interactive caller's slowest call."""
    taken = []
    for _ in range(calls):
        started = time.monotonic()
        assert len(rows(running.embedding.Embed(request(IMAGE), timeout=20))) == 1
        taken.append(time.monotonic() - started)
    return max(taken)


def test_a_slow_reader_holds_back_its_own_stream_and_nobody_else(running: Running) -> None:
    sender = Sender(1000)
    with grpc.insecure_channel(running.target, options=SMALL_WINDOW) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        answers = stub.EmbedStream(iter(sender), timeout=60)
        held = sender.held_back()
        assert 0 < held < 300
        assert running.engine.room.images == 0  # what was read is computed, and no more is read
        assert slowest_of(running) < 2
        read = {next(answers).chunk_id for _ in range(60)}
        assert len(read) == 60
        assert sender.held_back() > held
        answers.cancel()


def test_a_caller_who_leaves_while_he_is_answered_is_gone_at_once_and_no_error(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    sender = Sender(1000)
    with grpc.insecure_channel(running.target, options=SMALL_WINDOW) as channel:
        answers = embedding_pb2_grpc.EmbeddingServiceStub(channel).EmbedStream(iter(sender), timeout=60)
        assert sender.held_back() > 0
        assert running.calls.calls == 1
        answers.cancel()
        eventually(lambda: running.calls.calls == 0)
        assert slowest_of(running, calls=1) < 2
    assert not caplog.records


def test_a_slow_sender_keeps_nobody_waiting(running: Running) -> None:
    sender = Sender(10)
    sender.go_on.clear()
    answers = running.embedding.EmbedStream(iter(sender), timeout=60)
    assert next(answers).chunk_id == 0
    assert slowest_of(running) < 2
    assert sender.taken == 0
    sender.go_on.set()
    assert len(list(answers)) == 9


def test_ten_times_the_load_over_the_wire_leaves_the_goodput_and_is_refused_at_once() -> None:
    """Open loop. Callers have a process of their own: beside the server's threads they would slow them."""
    with serving(SteadyDevice(), most_images=32) as server:
        # Twice, because other work on this machine can only make it look worse.
        assert any(overloaded(server) >= 0.9 for _ in range(2))
        assert server.engine.room.images == 0


def overloaded(server: Running) -> float:
    """Share of what the server answers in closed loop that it answers under ten times as much."""
    peak = closed_loop(server, seconds=1.5)
    arguments = [server.target, str(10 * peak), "3"]
    told = subprocess.run([sys.executable, CALLERS, *arguments], capture_output=True, check=True)
    overload = json.loads(told.stdout)
    assert len(overload["refusals"]) > 0.7 * overload["sent"]
    assert np.median(overload["refusals"]) < 0.05  # a few milliseconds on an idle machine
    return float(overload["rate"] / peak)


def closed_loop(server: Running, seconds: float) -> float:
    """Images a second for 8 callers who wait for each answer."""
    begun, done = time.monotonic(), [0] * 8

    def caller(number: int) -> None:
        while time.monotonic() < begun + seconds:
            server.embedding.Embed(request(IMAGE), timeout=20)
            done[number] += 1

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - begun)
