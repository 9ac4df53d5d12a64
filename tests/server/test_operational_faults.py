"""Faults from outside: hostile bytes, idle crowds, jumping clocks, servers that come and go."""

from __future__ import annotations

import ast
import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from calling import calling
from lookalike import AsyncClient, Client
from lookalike.records import AddReport
from lookalike.v1 import embedding_pb2, embedding_pb2_grpc, types_pb2
from operated import Operated, free_address, operated
from photos import encode, photo
from serving import info, request, rich_status, rows

SERVER = Path(__file__).resolve().parents[2] / "server" / "lookalike_server"
PICTURE = encode(photo("chelsea").resize((64, 40)))

# What an HTTP/2 client says first, and an empty SETTINGS frame.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


_WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    folder = tmp_path_factory.mktemp("operated")
    with (
        pytest.MonkeyPatch.context() as patch,
        operated(patch, folder, max_message_bytes=2 << 20, max_connections=600) as server,
    ):
        yield server


@pytest.fixture
def embedding(running: Operated) -> Iterator[Any]:
    with running.channel() as channel:
        yield embedding_pb2_grpc.EmbeddingServiceStub(channel)


def refusal(call: Callable[[], Any]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def works(embedding: Any) -> bool:
    return len(rows(embedding.Embed(request(PICTURE), timeout=20))) == 1


def test_a_bomb_of_compressed_zeros_is_stopped_at_the_limit(embedding: Any) -> None:
    bomb = request(bytes(64 << 20))  # 64 KiB on the wire
    error = refusal(lambda: embedding.Embed(bomb, compression=grpc.Compression.Gzip, timeout=20))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert works(embedding)


def test_a_message_over_the_limit_is_refused_by_every_kind_of_call(running: Operated, embedding: Any) -> None:
    large = request(bytes(3 << 20))
    unary = refusal(lambda: embedding.Embed(large, timeout=20))
    chunk = embedding_pb2.EmbedStreamRequest(request=large)
    stream = refusal(lambda: list(embedding.EmbedStream(iter([chunk]), timeout=20)))
    assert {unary.code(), stream.code()} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert works(embedding)


def raw(channel: grpc.Channel, method: str) -> Any:
    return channel.unary_unary(f"/lookalike.v1.{method}", lambda data: data, lambda data: data)


@pytest.mark.parametrize(
    "method", ["EmbeddingService/Embed", "ItemService/UpsertItems", "SearchService/Search"]
)
def test_bytes_that_are_no_protobuf_are_an_invalid_argument(running: Operated, method: str) -> None:
    with running.channel() as channel:
        error = refusal(lambda: raw(channel, method)(b"\xff\xff\xff\xff garbage", timeout=20))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info(rich_status(error)).reason == "ARGUMENT_INVALID"


def test_garbage_in_a_stream_ends_it_with_a_status(running: Operated) -> None:
    with running.channel() as channel:
        method = "/lookalike.v1.EmbeddingService/EmbedStream"
        call = channel.stream_stream(method, lambda data: data, lambda data: data)
        error = refusal(lambda: list(call(iter([b"\xff\xff\xff\xff"]), timeout=20)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_unknown_enum_value_is_named_with_its_field(embedding: Any) -> None:
    tensor = types_pb2.Tensor(dtype=99, shape=[2, 2, 3], data=bytes(12))  # type: ignore[arg-type]
    asked = embedding_pb2.EmbedRequest(images=[types_pb2.Image(pixels=tensor)])
    error = refusal(lambda: embedding.Embed(asked, timeout=20))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info(rich_status(error)).metadata["field"] == "images[0].pixels.dtype"


def test_a_call_that_does_not_exist_is_unimplemented(running: Operated) -> None:
    with running.channel() as channel:
        error = refusal(lambda: raw(channel, "EmbeddingService/Guess")(b"", timeout=20))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@contextmanager
def crowd(address: str, size: int, hello: bytes) -> Iterator[list[socket.socket]]:
    """Connections that say hello, and then nothing."""
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(size)]
        for one in sockets:
            one.sendall(hello)
        yield sockets


@pytest.mark.parametrize("hello", [_HELLO, b""], ids=["idle", "silent"])
def test_a_crowd_of_idle_connections_harms_nobody(running: Operated, embedding: Any, hello: bytes) -> None:
    assert works(embedding)
    with crowd(running.address, 250, hello), running.channel() as channel:
        assert works(embedding)
        assert works(embedding_pb2_grpc.EmbeddingServiceStub(channel))  # one that comes after the crowd
    assert works(embedding)


def test_one_connection_too_many_is_turned_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with operated(monkeypatch, tmp_path, max_connections=5) as server:
        with crowd(server.address, 12, _HELLO) as sockets:
            time.sleep(0.5)
            assert sum(map(ended, sockets)) == 7
        with Client(server.address) as client:
            assert client.info().version


def ended(connection: socket.socket) -> bool:
    """Whether the other side has closed it; one that lives has sent its own settings."""
    connection.settimeout(2)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_the_clock_on_the_wall_times_nothing() -> None:
    """Wall clocks jump. Where one is read, the moment is for people to read or for files to keep."""
    allowed = {"calibrations.py", "store.py", "job.py", "traces.py", "places.py", "logs.py"}
    readers = {
        path.name
        for path in SERVER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) in ("time.time", "time.time_ns", "datetime.now")
    }
    assert readers <= allowed


def test_servers_come_and_go_under_load_and_no_call_of_the_client_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two servers, one after the other stopped and started again, while callers go on."""
    addresses = [free_address(), free_address()]
    servers = [
        operated(monkeypatch, tmp_path / str(i), address=address) for i, address in enumerate(addresses)
    ]
    for server in servers:
        server.__enter__()
    with calling("ipv4:" + ",".join(addresses), PICTURE) as callers:
        callers.wait(30)
        for i in (0, 1, 0):
            servers[i].__exit__(None, None, None)
            callers.wait(30)
            servers[i] = operated(monkeypatch, tmp_path / str(i), address=addresses[i])
            servers[i].__enter__()
            callers.wait(30)
    for server in servers:
        server.__exit__(None, None, None)
    assert callers.failures == []
    assert callers.done >= 200


ITEMS = 400


def added(address: str, count: list[int]) -> AddReport:
    with Client(address) as client:
        shop = client.create_collection("shop")
        return shop.add(*sent(), progress=lambda now: count.append(now.done))


async def added_too(address: str, count: list[int]) -> AddReport:
    async with AsyncClient(address) as client:
        shop = await client.create_collection("other")
        return await shop.add(*sent(), progress=lambda now: count.append(now.done))


def sent() -> tuple[Iterator[bytes], list[str]]:
    """Pictures that come a little slower than a server computes them, and their ids."""

    def pictures() -> Iterator[bytes]:
        for number in range(ITEMS):
            time.sleep(0.01)
            yield PICTURE + bytes([number % 256, number // 256])

    return pictures(), [str(number) for number in range(ITEMS)]


def test_a_server_that_is_started_again_under_bulk_streams_loses_no_item(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both clients send what was not acknowledged again."""
    address = free_address()
    counts: tuple[list[int], list[int]] = ([0], [0])
    with ThreadPoolExecutor(2) as pool:
        for turn in range(3):
            with operated(monkeypatch, tmp_path, address=address):
                if not turn:
                    reports = [
                        pool.submit(added, address, counts[0]),
                        pool.submit(lambda: asyncio.run(added_too(address, counts[1]))),
                    ]
                until, limit = [count[-1] + 64 for count in counts], time.monotonic() + 30
                while time.monotonic() < limit and any(
                    count[-1] < end for count, end in zip(counts, until, strict=True)
                ):
                    time.sleep(0.01)
                if turn == 2:
                    assert [report.result(60).added for report in reports] == [ITEMS, ITEMS]
                    with Client(address) as client:
                        assert [info.item_count for info in client.collections()] == [ITEMS, ITEMS]
                else:
                    assert not any(report.done() for report in reports)


def test_a_real_process_that_is_told_to_stop_under_load_fails_no_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its callers go on at another server; one is in this process."""
    first = free_address()
    flags = ["--address", first, "--data", str(tmp_path / "first"), "--served-recipes", "near_duplicate"]
    command = [sys.executable, "-m", "lookalike_server", *flags]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        operated(monkeypatch, tmp_path / "second") as second,
    ):
        assert process.stdout is not None
        assert "serves near_duplicate" in process.stdout.readline()
        with calling(f"ipv4:{first},{second.address}", PICTURE) as callers:
            callers.wait(20)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            before = second.engine.statistics().done["computed"]
            callers.wait(20)
        assert process.communicate() == ("", "")
        assert callers.failures == []
        assert second.engine.statistics().done["computed"] > before
