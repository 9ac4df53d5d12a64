"""Tokens: the file, the gate, and what a token may ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from listening import listening
from lookalike import AsyncClient, Client
from lookalike.cli.app import run
from lookalike.errors import InvalidArgument, PermissionDenied, Unauthenticated
from lookalike.v1 import collections_pb2, collections_pb2_grpc
from lookalike_server.assembly import Health
from lookalike_server.errors import ConfigInvalid, TokenLimit
from lookalike_server.interceptors import CallInterceptor
from lookalike_server.loading import load_settings
from lookalike_server.quotas import Quota
from lookalike_server.tokens import Gate, changes_nothing, new_token, read_tokens


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def made(path: Path, *scopes: str) -> list[str]:
    """Writes a token for each scope to the file, named after it."""
    pairs = [new_token(scope, scope, {}) for scope in scopes]
    path.write_text("# a comment\n\n" + "\n".join(line for _, line in pairs))
    return [token for token, _ in pairs]


class _Collections(collections_pb2_grpc.CollectionServiceServicer):
    async def GetCollection(self, request: Any, context: Any) -> Any:  # noqa: N802
        return collections_pb2.GetCollectionResponse()

    async def DeleteCollection(self, request: Any, context: Any) -> Any:  # noqa: N802
        return collections_pb2.DeleteCollectionResponse()


@contextmanager
def guarded(path: Path) -> Iterator[str]:
    """A server of a few calls and health, which asks for tokens."""

    async def add(server: grpc.aio.Server) -> None:
        collections_pb2_grpc.add_CollectionServiceServicer_to_server(_Collections(), server)
        await Health(server).set(serving=True)

    with listening(CallInterceptor(Gate(path)), add) as address:
        yield address


def test_a_token_opens_the_calls_of_its_scope_for_both_clients(path: Path) -> None:
    reader, writer = made(path, "read", "write")

    async def asynchronous(address: str) -> str:
        async with AsyncClient(address, token=reader) as client:
            return (await client.info()).version

    with guarded(path) as address:
        with Client(address, token=reader) as client:
            assert client.info().version == "1"
            with pytest.raises(PermissionDenied, match="'write'") as caught:
                client.delete_collection("shop")
        with Client(address, token=writer) as client:
            client.delete_collection("shop")
        assert asyncio.run(asynchronous(address)) == "1"
    assert caught.value.reason == "SCOPE_MISSING"


def test_without_a_token_or_with_a_wrong_one_nobody_comes_in_and_nothing_is_logged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made(path, "read")
    caplog.set_level("DEBUG")
    reasons = []
    with guarded(path) as address:
        for token in (None, "lookalike_guessed"):
            with Client(address, token=token) as client, pytest.raises(Unauthenticated) as caught:
                client.info()
            reasons.append(caught.value.reason)
    assert reasons == ["TOKEN_MISSING", "TOKEN_INVALID"]
    assert "guessed" not in caplog.text


def test_health_stays_open(path: Path) -> None:
    made(path, "read")
    with guarded(path) as address, grpc.insecure_channel(address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_changed_file_is_in_force_at_the_next_call(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (old,) = made(path, "read")
    with guarded(path) as address, Client(address, token=old) as client:
        client.info()
        path.write_text("no token at all")
        client.info()  # the last good file stays
        assert "stay in force" in caplog.text
        (new,) = made(path, "write")
        with pytest.raises(Unauthenticated):
            client.info()
        with Client(address, token=new) as other:
            other.info()


def test_calls_that_change_something_need_the_scope_to_write() -> None:
    reads = {"EmbeddingService/Embed", "EmbeddingService/EmbedStream", "SearchService/Search"}
    writes = {"ItemService/UpsertItems", "ItemService/DeleteItems", "CollectionService/CreateCollection"}
    assert all(changes_nothing(f"/lookalike.v1.{name}") for name in reads)
    assert not any(changes_nothing(f"/lookalike.v1.{name}") for name in writes | {"NoService/Call"})


def test_the_file_holds_no_token_and_its_faults_are_told_without_quoting_them(path: Path) -> None:
    token, line = new_token("shop", "write", {"images_per_second": 200, "images_in_flight": 1e6})
    assert token not in line
    assert line.endswith("write images_per_second=200 images_in_flight=1000000")
    path.write_text(f"{line}\nshop {token} read\n{line} speed=3\n{line.replace('=200', '=0')}\n{line}")
    with pytest.raises(ConfigInvalid) as caught:
        read_tokens(path)
    lines = caught.value.message.splitlines()
    assert [line.partition(": ")[2].partition(": ")[0] for line in lines[:3]] == [
        f"{path}, line {number}" for number in (2, 3, 4)
    ]
    assert lines[3] == f"token_file: {path}: shop stands there twice."
    assert token not in caught.value.message


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match=f"token_file: {path} cannot be read"):
        read_tokens(path)


def test_beyond_its_rate_a_token_is_told_when_to_come_back_and_a_stream_waits() -> None:
    async def main() -> None:
        quota = Quota(per_second=100)
        async with quota.hold(105, wait=False):  # more than a second's worth, let in because nothing was used
            pass
        with pytest.raises(TokenLimit) as caught:
            async with quota.hold(1, wait=False):
                pass
        assert 0 < float(caught.value.metadata["retry_after_ms"]) <= 50
        async with asyncio.timeout(5), quota.hold(1, wait=True):
            pass

    asyncio.run(main())


def test_images_in_flight_are_bounded_and_give_room_when_they_end() -> None:
    async def main() -> None:
        quota, events = Quota(in_flight=10), []

        async def stream() -> None:
            async with quota.hold(4, wait=True):
                events.append("in")

        async with quota.hold(8, wait=False):
            waiting = asyncio.create_task(stream())
            await asyncio.sleep(0.01)
            with pytest.raises(TokenLimit):
                async with quota.hold(4, wait=False):
                    pass
            events.append("out")
        await waiting
        assert events == ["out", "in"]
        async with quota.hold(100, wait=False):  # alone, what is larger than the whole may go
            assert quota.images == 100
        assert quota.images == 0

    asyncio.run(main())


def test_a_server_takes_no_tokens_in_plain_text_from_other_machines(path: Path) -> None:
    flags = {"address": "0.0.0.0:50051", "token_file": path}
    with pytest.raises(ConfigInvalid, match="everyone on the way could read the tokens"):
        load_settings(flags, environ={})
    assert load_settings({**flags, "plaintext_tokens": True}, environ={}).token_file == path


@pytest.mark.parametrize("target", ["shop:50051", "127.example.org:50051", "dns:shop:50051", "10.0.0.7:1"])
def test_a_client_sends_no_token_in_plain_text_to_another_machine(target: str) -> None:
    with pytest.raises(InvalidArgument, match="readable by everyone"):
        Client(target, token="lookalike_x")
    Client(target, token="lookalike_x", plaintext_token=True).close()
    Client(target, token="lookalike_x", tls=True).close()


def test_the_command_makes_a_token_that_the_gate_knows(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["token", "new", "shop", "--scope", "write", "--images-in-flight", "64"]) == 0
    token, line = capsys.readouterr().out.split("\n", 1)
    path.write_text(line)
    with guarded(path) as address:
        monkeypatch.setenv("LOOKALIKE_TOKEN", token)
        assert run(["collections", "delete", "shop", "--yes", "--server", address]) == 0
        assert run(["collections", "delete", "shop", "--yes", "--server", address, "--token", "wrong"]) == 1
    assert "TOKEN" not in capsys.readouterr().err
    assert run(["token", "new", "not a name"]) == 2
