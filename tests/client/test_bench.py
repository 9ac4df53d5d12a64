"""`lookalike bench`, against a server made by hand."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_server import FakeServer
from lookalike._connection import Access
from lookalike.bench import Load, Result, made_pictures, measure, unlike
from lookalike.cli.app import run
from lookalike.errors import InvalidArgument, NotFound, Unavailable
from photos import encode, photo
from PIL import Image, ImageChops

PICTURE = encode(photo("chelsea").resize((60, 40)))


def measured(server: FakeServer, files: list[bytes] | None = None, **load: Any) -> Result:
    given = Load(**({"seconds": 0.6, "warmup": 0.1} | load))
    return asyncio.run(measure(Access(server.target), files or [PICTURE], given))


def test_callers_wait_for_their_answers_in_a_closed_loop(server: FakeServer) -> None:
    server.delay = 0.05
    result = measured(server, callers=4, images=2)
    assert 4 <= len(result.latencies) <= 4 * (0.6 / 0.05 + 1)
    assert result.images == 2 * len(result.latencies)
    assert result.milliseconds()["p50"] >= 50
    assert result.images_per_second == pytest.approx(result.images / 0.6)


def test_in_an_open_loop_waiting_for_the_server_s_turn_counts(server: FakeServer) -> None:
    server.delay = 0.05  # eight at once: 160 a second, and twice as many are asked for
    result = measured(server, rate=320.0, seconds=1.0)
    times = result.milliseconds()
    assert times["max"] > 400
    assert len(result.latencies) == pytest.approx(320, rel=0.3)


def test_refusals_and_bad_images_are_counted_by_reason_and_not_tried_again(server: FakeServer) -> None:
    measured_calls = server.calls["Embed"]
    full = (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "full")
    original = server._enter

    def refuse_each_third(call: str, context: Any) -> None:
        if call == "Embed" and server.calls["Embed"] % 3 == 2:
            server.fail("Embed", full)
        original(call, context)

    server._enter = refuse_each_third  # type: ignore[method-assign]
    result = measured(server, [PICTURE, b"bad"], callers=1, images=2, warmup=0.0)
    assert result.errors["QUEUE_FULL"] >= 1
    assert result.errors["IMAGE_TRUNCATED"] == result.images == len(result.latencies)
    assert server.calls["Embed"] - measured_calls <= 2 + len(result.latencies) + result.errors["QUEUE_FULL"]


def test_a_first_call_that_fails_is_no_measurement(server: FakeServer) -> None:
    server.fail("Embed", (grpc.StatusCode.NOT_FOUND, "RECIPE_UNKNOWN", "there is no recipe"))
    with pytest.raises(NotFound):
        measured(server)
    with pytest.raises(Unavailable):
        asyncio.run(measure(Access("127.0.0.1:1"), [PICTURE], Load(timeout=1)))


@pytest.mark.parametrize(
    ("limit", "told"), [("images_per_message", "at most 4 images"), ("message_bytes", "bytes")]
)
def test_calls_that_the_server_would_not_read_are_told_with_what_to_do(
    server: FakeServer, limit: str, told: str
) -> None:
    setattr(server.limits, f"max_{limit}", 4)
    with pytest.raises(InvalidArgument, match=f"{told}.*--images"):
        measured(server, images=5)
    assert server.calls["Embed"] == 0


def test_a_picture_in_other_bytes_is_the_same_picture() -> None:
    other = unlike(PICTURE, 7)
    assert other not in (PICTURE, unlike(PICTURE, 8))
    before, after = (Image.open(io.BytesIO(file)) for file in (PICTURE, other))
    assert ImageChops.difference(before, after).getbbox() is None
    assert unlike(b"GIF89a", 7) == b"GIF89a"


def test_made_pictures_are_photos_to_a_decoder() -> None:
    first, second = made_pictures(2)
    assert Image.open(io.BytesIO(first)).size == (640, 480)
    assert 20_000 < len(first) < 400_000
    assert first != second


def test_the_command_prints_figures_for_people_and_for_programs(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cat.jpg").write_bytes(PICTURE)
    asked = ["bench", str(tmp_path), "--seconds", "0.3", "--server", server.target]
    assert run(asked) == 0
    assert "images/s" in capsys.readouterr().out
    assert run([*asked, "--rate", "50", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["loop"] == "open"
    assert figures["images"] > 0
    assert set(figures["latency_ms"]) == {"p50", "p90", "p99", "p99.9", "max"}


def test_a_folder_without_photos_is_told(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", str(tmp_path), "--server", server.target]) == 2
    assert "no photos in" in capsys.readouterr().err
