"""Several processes that speak gRPC for one engine: callers notice nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import make_authority, make_pair
from fronted import IMAGE, Stub, chunks, eventually, refusal
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st
from lookalike import Client
from lookalike.errors import Unauthenticated
from lookalike.v1 import embedding_pb2
from lookalike_server.app import SERVICES
from lookalike_server.errors import ConfigInvalid
from lookalike_server.fronts.bus import Bus
from lookalike_server.fronts.frames import MESSAGE, PIECE_BYTES, Start, Status
from lookalike_server.loading import load_settings
from lookalike_server.tokens import new_token
from operated import Operated, operated
from photos import encode, photo
from serving import reason, request, rich_status, rows

PICTURE = encode(photo("chelsea").resize((64, 40)))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    folder = tmp_path_factory.mktemp("fronts")
    with (
        pytest.MonkeyPatch.context() as patch,
        operated(patch, folder, front_ends=2, max_message_bytes=8 << 20) as server,
    ):
        yield server


@pytest.fixture
def channel(running: Operated) -> Iterator[grpc.Channel]:
    with running.channel() as channel:
        yield channel


def test_answers_are_the_same_to_the_bit_with_front_ends_and_without(
    channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = [PICTURE, IMAGE, b"no image"]
    with operated(monkeypatch, tmp_path) as alone, alone.channel() as direct:
        answers = [Stub(one).Embed(request(*images), timeout=20) for one in (direct, channel)]
        sent = chunks(20, *images)
        streams = [list(Stub(one).EmbedStream(iter(sent), timeout=20)) for one in (direct, channel)]
    assert told(answers[0]) == told(answers[1])
    assert {one.chunk_id for one in streams[0]} == {one.chunk_id for one in streams[1]} == set(range(20))
    assert all(told(one.response) == told(answers[0]) for stream in streams for one in stream)


def told(answer: embedding_pb2.EmbedResponse) -> Any:
    """All of an answer but its receipt."""
    return rows(answer).tobytes(), list(answer.results), answer.batches[0].space


def test_errors_arrive_with_all_their_details(channel: grpc.Channel) -> None:
    empty = refusal(lambda: Stub(channel).Embed(request(), timeout=20))
    assert (empty.code(), reason(rich_status(empty))) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "ARGUMENT_INVALID",
    )
    in_stream = refusal(lambda: list(Stub(channel).EmbedStream(iter(chunks(1)), timeout=20)))
    assert reason(rich_status(in_stream)) == "ARGUMENT_INVALID"


@pytest.mark.parametrize(
    ("method", "message", "code"),
    [
        ("Guess", b"", grpc.StatusCode.UNIMPLEMENTED),
        ("Embed", b"\xff\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        ("Embed", bytes(9 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["no such call", "no protobuf", "too large"],
)
def test_what_is_wrong_with_a_call_is_told_as_ever(
    channel: grpc.Channel, method: str, message: bytes, code: grpc.StatusCode
) -> None:
    call = channel.unary_unary(f"/lookalike.v1.EmbeddingService/{method}", bytes, bytes)
    assert refusal(lambda: call(message, timeout=20)).code() is code


def test_health_and_reflection_are_there(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=20).status == serving
    watching = health.Watch(health_pb2.HealthCheckRequest(service=SERVICES[0]), timeout=20)
    assert next(watching).status == serving
    watching.cancel()
    unknown = refusal(lambda: health.Check(health_pb2.HealthCheckRequest(service="none"), timeout=20))
    assert unknown.code() is grpc.StatusCode.NOT_FOUND
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked, timeout=20)
    assert set(SERVICES) <= {service.name for service in answer.list_services_response.service}


def test_large_messages_go_both_ways_and_small_calls_between_them(channel: grpc.Channel) -> None:
    large = request(os.urandom(7 << 20))
    with ThreadPoolExecutor(4) as pool:
        big = [pool.submit(Stub(channel).Embed, large, timeout=30) for _ in range(4)]
        assert len(rows(Stub(channel).Embed(request(IMAGE), timeout=20))) == 1
        assert {one.result().results[0].width for one in big} == {0}


def test_a_slow_reader_holds_back_its_own_stream_and_nobody_else(running: Operated) -> None:
    taken, sixteen = [0], request(*[IMAGE] * 16)

    def sender() -> Iterator[embedding_pb2.EmbedStreamRequest]:
        for number in range(3000):
            taken[0] = number
            yield embedding_pb2.EmbedStreamRequest(chunk_id=number, request=sixteen)

    def held_back() -> int:
        before = -1
        while before != taken[0]:
            before = taken[0]
            time.sleep(0.5)
        return before

    small_window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 16)]
    with grpc.insecure_channel(running.address, options=small_window) as channel:
        answers = Stub(channel).EmbedStream(sender(), timeout=60)
        held = held_back()
        assert 0 < held < 2500
        eventually(lambda: running.engine.room.images == 0)  # what was read is computed, and no more is read
        assert len(rows(Stub(channel).Embed(request(IMAGE), timeout=20))) == 1
        assert len({next(answers).chunk_id for _ in range(held // 2)}) == held // 2
        assert held_back() > held
        answers.cancel()


def test_encrypted_calls_with_tokens_and_a_renewed_certificate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority, later = make_authority(tmp_path), make_authority(tmp_path, "later")
    pair = make_pair(tmp_path, "server", authority)
    token, line = new_token("shop", "write", {})
    (tmp_path / "tokens").write_text(line)
    files = {"tls_certificate": pair.certificate, "tls_key": pair.key, "token_file": tmp_path / "tokens"}
    with operated(monkeypatch, tmp_path, front_ends=2, **files) as server:
        with Client(server.address, ca=authority.certificate, token=token) as client:
            assert client.embed(PICTURE).shape == (8,)
        with Client(server.address, ca=authority.certificate) as client, pytest.raises(Unauthenticated):
            client.embed(PICTURE)
        renewed = make_pair(tmp_path, "renewed", later)
        pair.key.write_bytes(renewed.key.read_bytes())
        pair.certificate.write_bytes(renewed.certificate.read_bytes())
        for _ in range(4):  # whichever front-end answers
            with Client(server.address, ca=later.certificate, token=token) as client:
                assert client.embed(PICTURE).shape == (8,)


def test_a_stranger_s_message_is_not_taken_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token, line = new_token("shop", "write", {})
    (tmp_path / "tokens").write_text(line)
    known = (("authorization", f"Bearer {token}"),)
    with operated(monkeypatch, tmp_path, front_ends=1, token_file=tmp_path / "tokens") as server:
        sent = threading.Event()

        def never() -> Iterator[embedding_pb2.EmbedStreamRequest]:
            sent.wait(20)
            yield from ()

        with server.channel() as channel:
            error = refusal(lambda: list(Stub(channel).EmbedStream(never(), timeout=20)))
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            call = channel.stream_unary("/lookalike.v1.EmbeddingService/Embed", bytes, bytes)
            nothing = refusal(lambda: call(iter([]), metadata=known, timeout=20))
            assert nothing.code() is grpc.StatusCode.INTERNAL
        sent.set()


def test_a_unix_socket_is_refused_as_one_that_processes_cannot_share() -> None:
    with pytest.raises(ConfigInvalid, match="front_ends: processes cannot share unix:/tmp/x"):
        load_settings({"front_ends": 2, "address": "unix:/tmp/x"}, environ={})


metadata = st.lists(
    st.tuples(st.sampled_from(["x-request-id", "authorization"]), st.text(max_size=20))
    | st.tuples(st.just("trace-bin"), st.binary(max_size=20))
).map(tuple)


@given(st.text(), st.none() | st.floats(0, 1e6), st.booleans(), metadata)
def test_what_is_known_of_a_call_survives_the_bus(
    method: str, left: float | None, sends: bool, pairs: Any
) -> None:
    start = Start(method, "ipv6:%5B::1%5D:50051", left, sends, pairs)
    assert Start.decode(start.encode()) == start
    status = Status(5, method, pairs)
    assert Status.decode(status.encode()) == status
    assert Status.decode(Status().encode()) == Status()


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, PIECE_BYTES) | st.integers(5 * PIECE_BYTES, 6 * PIECE_BYTES), max_size=12))
def test_frames_of_any_size_arrive_whole_and_in_order(sizes: list[int]) -> None:
    sent = [(MESSAGE, number, os.urandom(size)) for number, size in enumerate(sizes)]

    async def carry() -> list[tuple[int, int, bytes]]:
        ends, heard, loop = socket.socketpair(), [], asyncio.get_running_loop()
        end, bus = await loop.create_connection(lambda: Bus(print, lambda: None), sock=ends[0])
        lost = asyncio.Event()
        await Bus.connect(ends[1], lambda *frame: heard.append(frame), lost.set)
        for frame in sent:
            await bus.room()
            bus.send(*frame)
        while len(heard) < len(sent):
            await asyncio.sleep(0.001)
        end.close()
        await lost.wait()
        return heard

    assert asyncio.run(carry()) == sent


def test_a_front_end_loads_neither_models_nor_indexes() -> None:
    heavy = "{'torch', 'faiss', 'numpy', 'pydantic', 'lookalike'} & set(sys.modules)"
    code = f"import sys, lookalike_server.fronts.__main__; sys.exit(repr({heavy}) if {heavy} else 0)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
