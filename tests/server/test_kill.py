"""A killed process loses nothing that it acknowledged. `benchmarks/kill9.py` is the long form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "kill9.py"


def test_nothing_acknowledged_is_lost_when_the_process_is_killed() -> None:
    result = subprocess.run(
        [sys.executable, PROGRAM, "--rounds", "4"], capture_output=True, text=True, timeout=240
    )
    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads(result.stdout)
    assert figures["acknowledged_upserts"] > 0
    assert figures["faults"] == {}
