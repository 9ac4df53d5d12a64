"""A server that cannot start says why, in one line and within seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from lookalike.cli.app import run
from lookalike_server.app import serve
from lookalike_server.catalog import Catalog
from lookalike_server.config import RecipeTable, Settings, TapTable

pytestmark = pytest.mark.timeout(60)  # one that starts after all would serve for ever


def last_line(settings: Settings, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    started = time.monotonic()
    status = serve(settings)
    assert time.monotonic() - started < 20
    (line,) = capsys.readouterr().err.splitlines()
    return status, line


def test_weights_that_are_not_there_end_the_start_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taps = (TapTable(node="layer4"),)
    mine = RecipeTable(backbone="resnet18", taps=taps, weights=tmp_path / "gone.safetensors")
    settings = Settings(
        address="127.0.0.1:0", data=tmp_path, recipes={"mine": mine}, served_recipes=("mine",)
    )
    status, line = last_line(settings, capsys)
    assert status == 1
    assert "gone.safetensors" in line


def test_a_data_directory_in_use_ends_the_start_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Catalog(tmp_path):
        status, line = last_line(Settings(address="127.0.0.1:0", data=tmp_path), capsys)
    assert status == 1
    assert line.startswith(f"lookalike: The data directory {tmp_path} is in use by process ")


def test_a_wrong_setting_ends_the_start_with_status_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lookalike.toml"
    file.write_text("max_k = 0\n")
    assert run(["serve", "--config", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"lookalike: {file}: max_k: should be greater than")
