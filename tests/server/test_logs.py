"""What is logged of a call: one line that says how it ended, and never an image or a token."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from lookalike.v1 import embedding_pb2_grpc
from lookalike_server import logs
from lookalike_server.tokens import new_token
from operated import operated
from photos import encode, photo
from serving import SpoiledDevice, request


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Where the log goes, as JSON from level "info" on."""
    stream, handler = io.StringIO(), logging.StreamHandler()
    handler.setStream(stream)
    handler.setFormatter(logs.JsonLines())
    logger = logging.getLogger("lookalike_server")
    logger.addHandler(handler)
    logs.set_level("info")
    yield stream
    logger.removeHandler(handler)
    logs.set_level("warning")


def calls(lines: io.StringIO) -> list[dict[str, Any]]:
    parsed = [json.loads(line) for line in lines.getvalue().splitlines()]
    return [line for line in parsed if line["logger"] == "lookalike_server.calls"]


def test_a_call_is_one_line_with_its_outcome_and_no_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: io.StringIO
) -> None:
    token, line = new_token("shop", "read", {})
    (tmp_path / "tokens").write_text(line)
    picture, marker = encode(photo("chelsea").resize((64, 40))), b"GIF89a-a-secret-picture"
    shown = (("authorization", f"Bearer {token}"), ("x-request-id", "order-17"))
    settings = {"token_file": tmp_path / "tokens"}
    with operated(monkeypatch, tmp_path, **settings) as running, running.channel() as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        stub.Embed(request(picture, marker), metadata=shown)
        with pytest.raises(grpc.RpcError):
            stub.Embed(request(picture, recipes=["nowhere"]), metadata=(("authorization", "Bearer guess"),))
    good, refused = calls(lines)
    assert good["message"].startswith("/lookalike.v1.EmbeddingService/Embed OK ")
    assert {key: good[key] for key in ("request_id", "code", "images", "failed", "token")} == {
        "request_id": "order-17",
        "code": "OK",
        "images": 2,
        "failed": 1,
        "token": "shop",
    }
    assert good["peer"].startswith("ipv4:127.0.0.1:")
    assert 0 < good["seconds"] < 60
    assert (refused["code"], refused["reason"]) == ("UNAUTHENTICATED", "TOKEN_INVALID")
    for secret in (token, "guess", "secret-picture", str(picture[:8])):
        assert secret not in lines.getvalue()


def test_a_fault_of_ours_is_logged_with_its_traceback_and_the_id_that_the_caller_got(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: io.StringIO
) -> None:
    spoiled = SpoiledDevice(lambda rows: rows)
    with operated(monkeypatch, tmp_path, spoiled) as running, running.channel() as channel:
        spoiled.spoil = lambda rows: 1 / 0  # type: ignore[assignment,return-value]
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        answer = stub.Embed(request(encode(photo("coffee").resize((40, 40)))))
        spoiled.spoil = lambda rows: rows
    incident = answer.results[0].status.message.split("incident ")[1].split(")")[0]
    (fault,) = [
        line for line in map(json.loads, lines.getvalue().splitlines()) if incident in line["message"]
    ]
    assert fault["level"] == "error"
    assert "ZeroDivisionError" in fault["exception"]


def test_text_is_for_people_and_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:]
    try:
        for form in ("text", "json"):
            logs.configure(form, "info")
            logging.getLogger("lookalike_server.test").info("hello %s", "you")
            logging.getLogger("lookalike_server.test").debug("not this")
            logging.getLogger("elsewhere").info("nor this")
    finally:
        logging.getLogger().handlers[:] = before
        logs.set_level("warning")
    text, line = capsys.readouterr().err.splitlines()
    assert text.endswith("INFO lookalike_server.test: hello you")
    assert json.loads(line).items() >= {"level": "info", "message": "hello you"}.items()
