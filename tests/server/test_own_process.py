"""What a process that only serves sets for itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from lookalike_server.own_process import before_torch, environment_apart


@pytest.fixture
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has said how threads wait; what the test makes the environment say is taken back."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "to be put back")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


@pytest.mark.usefixtures("unsaid")
@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_how_threads_wait_is_left_to_whoever_has_said_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "active")
    before_torch()
    assert os.environ.get("GOMP_SPINCOUNT") == ("active" if name == "GOMP_SPINCOUNT" else None)


@pytest.mark.usefixtures("unsaid")
def test_threads_wait_busily_for_a_moment_only_when_nobody_has_said_how() -> None:
    before_torch()
    assert int(os.environ["GOMP_SPINCOUNT"]) < 100_000


@pytest.mark.usefixtures("unsaid")
def test_where_torch_alone_computes_threads_wait_as_they_do_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before_torch()
    assert "GOMP_SPINCOUNT" not in environment_apart(torch_only=True)
    assert environment_apart(torch_only=False) == os.environ
    monkeypatch.setenv("GOMP_SPINCOUNT", "77")
    assert environment_apart(torch_only=True)["GOMP_SPINCOUNT"] == "77"


def test_commands_that_serve_say_so_before_torch_is_there() -> None:
    code = (
        "import sys, lookalike_server.__main__, lookalike_server.own_process, lookalike.cli.serve\n"
        "import lookalike_server.loading\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_leaving_does_what_was_registered_for_the_end_and_writes_what_was_said() -> None:
    code = (
        "import atexit; from lookalike_server.own_process import leave\n"
        "atexit.register(print, 'closed'); print('said'); leave(3)"
    )
    left = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (left.returncode, left.stdout) == (3, "said\nclosed\n")
