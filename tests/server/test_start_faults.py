"""A server that cannot start says why, in one line and within seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lookalike.cli.app import run
from lookalike_server.app import serve
from lookalike_server.catalog import Catalog
from lookalike_server.config import RecipeTable, Settings, TapTable

pytestmark = pytest.mark.timeout(60)  # one that starts after all would serve for ever


def last_line(settings: Settings, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = serve(settings)
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


@pytest.mark.parametrize("command", ["serve", "models"])
def test_a_data_directory_in_use_is_told_before_torch_is_loaded(command: str, tmp_path: Path) -> None:
    program = (
        "import sys; from lookalike.cli.app import run; status = run(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    arguments = [sys.executable, "-c", program, command, "--data", tmp_path]
    with Catalog(tmp_path):
        ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
        told = f"lookalike: The data directory {tmp_path} is in use by process {os.getpid()}. "
        assert (ended.returncode, ended.stderr[: len(told)]) == (1, told)
    Catalog(tmp_path).close()  # whoever looked does not hold it


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_is_stopped_while_its_engine_starts_ends_at_once_and_leaves_nothing_in_tmp(
    number: int, status: int, tmp_path: Path
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    program = "import lookalike.cli; lookalike.cli.main()"
    arguments = [sys.executable, "-c", program, "models", "--data", tmp_path / "data"]
    with subprocess.Popen(
        arguments, env={**os.environ, "TMPDIR": str(folder)}, stderr=subprocess.PIPE, text=True
    ) as command:
        while not list(folder.glob("lookalike-*")):
            assert command.poll() is None
            time.sleep(0.02)
        command.send_signal(number)
        told = time.monotonic()
        _, err = command.communicate()
    assert time.monotonic() - told < 30
    assert (command.returncode, err) == (status, "lookalike: stopped; nothing was changed\n")
    assert list(folder.iterdir()) == []
