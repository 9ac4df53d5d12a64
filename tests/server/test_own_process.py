"""What a process that only serves sets for itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from lookalike_server.own_process import before_torch


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_how_threads_wait_is_left_to_whoever_has_said_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv(name, "active")
    before_torch()
    assert os.environ.get("OMP_WAIT_POLICY") == ("active" if name == "OMP_WAIT_POLICY" else None)


def test_threads_sleep_when_nobody_has_said_how_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "to be put back")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    before_torch()
    assert os.environ.get("OMP_WAIT_POLICY") == "passive"


def test_commands_that_serve_say_so_before_torch_is_there() -> None:
    code = (
        "import sys, lookalike_server.__main__, lookalike_server.own_process, lookalike.cli.serve\n"
        "import lookalike_server.loading\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
