"""The admin socket of a server that runs."""

from __future__ import annotations

import logging
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import make_authority, make_pair
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lookalike import Client
from lookalike.cli.app import run
from lookalike.v1 import admin_pb2, admin_pb2_grpc
from lookalike_server.errors import ConfigInvalid
from lookalike_server.loading import load_settings
from lookalike_server.tokens import new_token
from operated import operated
from serving import reason, rich_status


def stub(socket: str) -> Any:
    return admin_pb2_grpc.AdminServiceStub(grpc.insecure_channel(socket))


def test_status_and_health_are_told_on_a_socket_that_only_this_user_opens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = make_authority(tmp_path)
    pair = make_pair(tmp_path, "server", authority)
    (tmp_path / "tokens").write_text(new_token("shop", "read", {})[1])
    socket = f"unix:{tmp_path}/admin"
    settings = {"tls_certificate": pair.certificate, "tls_key": pair.key, "token_file": tmp_path / "tokens"}
    with operated(monkeypatch, tmp_path, admin_address=socket, **settings) as running:
        status = stub(socket).GetStatus(admin_pb2.GetStatusRequest())
        health = health_pb2_grpc.HealthStub(grpc.insecure_channel(socket)).Check(
            health_pb2.HealthCheckRequest()
        )
        mode = stat.S_IMODE((tmp_path / "admin").stat().st_mode)
    assert status.state == admin_pb2.SERVER_STATE_SERVING
    assert (status.address, list(status.tokens)) == (running.address, ["shop"])
    assert status.HasField("certificate_expires")
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert mode == 0o600


def test_the_admin_service_is_not_on_the_public_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with operated(monkeypatch, tmp_path) as running, pytest.raises(grpc.RpcError) as caught:
        stub(running.address).Drain(admin_pb2.DrainRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_told_to_drain_the_server_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    socket = f"unix:{tmp_path}/admin"
    with operated(monkeypatch, tmp_path, admin_address=socket) as running:
        with Client(running.address) as client:
            client.info()
        assert run(["admin", "drain", "--socket", socket]) == 0
        assert running.ended.wait(20)


def test_the_log_level_changes_while_it_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    socket = f"unix:{tmp_path}/admin"
    with operated(monkeypatch, tmp_path, admin_address=socket):
        assert run(["admin", "log-level", "debug", "--socket", socket]) == 0
        assert logging.getLogger("lookalike_server.x").isEnabledFor(logging.DEBUG)
        assert run(["admin", "log-level", "warning", "--socket", socket]) == 0
        assert not logging.getLogger("lookalike_server.x").isEnabledFor(logging.INFO)
        with pytest.raises(grpc.RpcError) as caught:
            stub(socket).SetLogLevel(admin_pb2.SetLogLevelRequest())
    assert reason(rich_status(caught.value)) == "ARGUMENT_INVALID"


def test_reloading_tells_whether_the_files_can_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens, socket = tmp_path / "tokens", f"unix:{tmp_path}/admin"
    token, line = new_token("shop", "read", {})
    tokens.write_text(line)
    with operated(monkeypatch, tmp_path, admin_address=socket, token_file=tokens) as running:
        assert run(["admin", "reload", "--socket", socket]) == 0
        tokens.write_text("nothing of use")
        assert run(["admin", "reload", "--socket", socket]) == 2
        assert f"token_file: {tokens}, line 1: expected NAME" in capsys.readouterr().err
        with Client(running.address, token=token) as client:
            client.info()
        assert run(["admin", "status", "--socket", socket]) == 0
        out = capsys.readouterr().out
    assert "serving" in out
    assert "shop" in out


def test_a_socket_where_nobody_listens_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["admin", "status", "--socket", f"unix:{tmp_path}/none"]) == 1
    told = capsys.readouterr().err
    assert "no server has its admin socket" in told
    assert f"admin_address = 'unix:{tmp_path}/none'" in told


def test_the_admin_address_is_a_socket() -> None:
    with pytest.raises(ConfigInvalid, match="--admin-address: must be unix:PATH"):
        load_settings({"admin_address": "127.0.0.1:1"}, environ={})
