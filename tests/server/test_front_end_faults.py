"""Front-ends that are killed, that cannot start, that are told to stop: and what becomes of the calls."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from calling import calling
from certificates import make_authority, make_pair
from fronted import (
    IMAGE,
    MOST_CALLS,
    Held,
    Stub,
    alive,
    chunks,
    connections,
    eventually,
    front_ends,
    held_server,
    refusal,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lookalike_server import app
from lookalike_server.config import Settings
from lookalike_server.device import Device
from lookalike_server.engine import Engine
from lookalike_server.errors import ListenFailed
from lookalike_server.fronts import pulse
from lookalike_server.fronts.server import FrontEnds
from lookalike_server.interceptors import CallInterceptor
from operated import free_address, operated
from photos import encode, photo
from serving import TinyModel, recipes_of, request, rows

PICTURE = encode(photo("chelsea").resize((64, 40)))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Held]:
    with held_server(monkeypatch, tmp_path) as server:
        yield server


def test_a_caller_who_leaves_has_left_the_engine_too(held: Held) -> None:
    with held.server.channel() as channel:
        call = Stub(channel).Embed.future(request(IMAGE))
        stream = Stub(channel).EmbedStream(iter(chunks(1, IMAGE)))
        eventually(lambda: held.calls() == 2)
        call.cancel()
        stream.cancel()
        eventually(lambda: held.calls() == 0)
    with held.server.channel() as channel:
        call = Stub(channel).Embed.future(request(IMAGE))
        eventually(lambda: held.calls() == 1)
        assert not call.done()
    eventually(lambda: held.calls() == 0)  # the connection is gone


def test_a_deadline_ends_the_call_in_the_engine(held: Held) -> None:
    with held.server.channel() as channel:
        error = refusal(lambda: Stub(channel).Embed(request(IMAGE), timeout=0.5))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(lambda: held.calls() == 0)


def test_calls_are_counted_over_all_front_ends(held: Held) -> None:
    with connections(held.server.address, MOST_CALLS) as stubs:
        calls = [stub.Embed.future(request(IMAGE), timeout=30) for stub in stubs]
        eventually(lambda: held.calls() == MOST_CALLS)
        error = refusal(lambda: stubs[0].Embed(request(IMAGE), timeout=20))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        held.device.open()
        assert all(len(rows(call.result())) == 1 for call in calls)


def test_a_front_end_that_is_killed_takes_its_own_calls_with_it_and_is_replaced(
    held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    before = front_ends()
    victim = min(before)
    with connections(held.server.address, MOST_CALLS) as stubs:
        calls = [stub.Embed.future(request(IMAGE), timeout=30) for stub in stubs]
        eventually(lambda: held.calls() == MOST_CALLS)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: held.calls() < MOST_CALLS)
        eventually(lambda: len(front_ends() - {victim}) == 2)
        held.device.open()
        codes = Counter(call.code() for call in calls)
        assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        again = [stub.Embed(request(IMAGE), timeout=20, wait_for_ready=True) for stub in stubs]
        assert all(len(rows(answer)) == 1 for answer in again)
    assert held.metric("lookalike_front_end_restarts_total") == 1
    assert held.metric("lookalike_front_ends") == 2
    assert f"A front-end (process {victim}) has died" in caplog.text


def test_a_front_end_that_hangs_is_killed_and_replaced_and_no_call_of_the_client_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pulse, "ASK_SECONDS", 0.5)
    with operated(monkeypatch, tmp_path, front_ends=2) as server, calling(server.address, PICTURE) as callers:
        for victim in front_ends():  # whichever has the connection
            callers.wait(20)
            os.kill(victim, signal.SIGSTOP)
            eventually(lambda victim=victim: len(front_ends() - {victim}) == 2, 30)
            callers.wait(20)
            assert f"A front-end (process {victim}) answers nothing any more" in caplog.text
    assert callers.failures == []


def test_a_front_end_is_given_up_after_so_many_questions_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "ASK_SECONDS", 0)
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        if asked <= 20:
            front.heard()

    front = pulse.Pulse(ask)
    asyncio.run(front.stopped())
    assert asked == 20 + pulse.MOST_UNANSWERED


def test_told_to_stop_it_lets_calls_end_and_leaves_no_process(held: Held) -> None:
    with held.server.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING
        call = Stub(channel).Embed.future(request(IMAGE), timeout=30)
        eventually(lambda: held.calls() == 1)
        held.server.stop()
        assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
        held.device.open()
        assert len(rows(call.result())) == 1
    assert held.server.ended.wait(60)
    assert front_ends() == set()


def test_told_twice_it_stops_at_once(held: Held) -> None:
    with held.server.channel() as channel:
        call = Stub(channel).Embed.future(request(IMAGE), timeout=30)
        eventually(lambda: held.calls() == 1)
        held.server.stop()
        held.server.stop()
        assert call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        held.device.open()
    assert held.server.ended.wait(60)
    assert front_ends() == set()


def test_servers_come_and_go_and_no_call_of_the_client_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    addresses = [free_address(), free_address()]

    def started(i: int) -> Any:
        server = operated(monkeypatch, tmp_path / str(i), address=addresses[i], front_ends=2)
        server.__enter__()
        return server

    servers = [started(0), started(1)]
    with calling("ipv4:" + ",".join(addresses), PICTURE) as callers:
        callers.wait(40)
        for i in (0, 1):
            servers[i].__exit__(None, None, None)
            callers.wait(40)
            servers[i] = started(i)
            callers.wait(40)
    for server in servers:
        server.__exit__(None, None, None)
    assert callers.failures == []


# A whole server, and its front-ends alone.
SERVER = """
import sys
from lookalike_server import app
from lookalike_server.config import Settings
from lookalike_server.device import Device
from lookalike_server.engine import Engine
from serving import TinyModel, recipes_of

device = Device([TinyModel()])
app.served_recipes = lambda _: recipes_of(device)
app.make_engine = lambda _, recipes: Engine(recipes, device)
sys.exit(app.serve(Settings(address="127.0.0.1:0", data=sys.argv[1], front_ends=2)))
"""
FRONT_ENDS = """
import asyncio
from lookalike_server.config import Settings
from lookalike_server.fronts.server import FrontEnds
from lookalike_server.interceptors import CallInterceptor

async def main():
    await FrontEnds(Settings(address="127.0.0.1:0", front_ends=2), CallInterceptor()).start()
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@contextmanager
def hosting(program: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """In a group of its own, as a terminal would start it; yields once it has said that it is ready."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline()
        yield host


def test_ctrl_c_goes_to_all_and_ends_the_server_as_it_should(tmp_path: Path) -> None:
    with hosting(SERVER, tmp_path) as host:
        fronts = front_ends(host.pid)
        assert len(fronts) == 2
        os.killpg(host.pid, signal.SIGINT)
        assert host.wait(20) == 0
        assert not any(map(alive, fronts))


def test_front_ends_end_with_their_engine(tmp_path: Path) -> None:
    with hosting(FRONT_ENDS, tmp_path) as host:
        fronts = front_ends(host.pid)
        assert len(fronts) == 2
        host.kill()
        host.wait()
        eventually(lambda: not any(map(alive, fronts)))


def test_a_front_end_that_cannot_start_ends_the_server_with_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = Device([TinyModel()])
    monkeypatch.setattr(app, "served_recipes", lambda _: recipes_of(device))
    monkeypatch.setattr(app, "make_engine", lambda _, recipes: Engine(recipes, device))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert app.serve(Settings(address="127.0.0.1:0", data=tmp_path, front_ends=2)) == 1
    assert capsys.readouterr().err == "lookalike: A front-end ended before it took calls.\n"


def with_front_ends(then: Callable[[FrontEnds], Any], **settings: Any) -> None:
    """Does something with front-ends that no service stands behind, and stops them."""

    async def main() -> None:
        fronts = FrontEnds(Settings(address="127.0.0.1:0", front_ends=2, **settings), CallInterceptor())
        try:
            await then(fronts)
        finally:
            await fronts.stop(None)
        assert front_ends() == set()

    asyncio.run(main())


def test_why_a_front_end_cannot_listen_is_told_in_its_own_words(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "server", make_authority(tmp_path))

    async def start(fronts: FrontEnds) -> None:
        pair.certificate.unlink()
        with pytest.raises(ListenFailed, match=r"^tls_certificate: .* cannot be read: No such file"):
            await fronts.start()

    with_front_ends(start, tls_certificate=pair.certificate, tls_key=pair.key)


def test_once_none_is_left_and_none_can_be_started_all_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lose(fronts: FrontEnds) -> None:
        await fronts.start()
        monkeypatch.setattr(sys, "executable", "/bin/false")
        one, other = front_ends()
        os.kill(one, signal.SIGKILL)
        await asyncio.sleep(0.5)
        assert not fronts.lost.is_set()
        os.kill(other, signal.SIGKILL)
        await asyncio.wait_for(fronts.lost.wait(), 10)

    with_front_ends(lose)


def test_a_port_in_use_is_told_before_anything_is_started(tmp_path: Path) -> None:
    async def take_it_too(fronts: FrontEnds) -> None:
        await fronts.start()
        for count in (0, 2):
            settings = Settings(address=fronts.address, data=tmp_path, front_ends=count)
            with pytest.raises(ListenFailed, match="Address already in use"):
                await app.run(settings, app.Stop(), lambda address, engine: None)

    with_front_ends(take_it_too)
