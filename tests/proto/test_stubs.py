"""The committed stubs are those that the protos give, and every message arrives through them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATE = ROOT / "proto" / "generate.py"
STUBS = ROOT / "client" / "lookalike" / "v1"


def test_the_committed_stubs_are_those_that_the_protos_give(tmp_path: Path) -> None:
    subprocess.run([sys.executable, GENERATE, tmp_path], check=True, capture_output=True)
    fresh = {path.name: path.read_text() for path in (tmp_path / "lookalike" / "v1").iterdir()}
    committed = {path.name: path.read_text() for path in STUBS.iterdir() if path.suffix in {".py", ".pyi"}}
    assert committed == fresh, "run: python proto/generate.py"


def test_the_protos_keep_the_style() -> None:
    result = subprocess.run([sys.executable, ROOT / "proto" / "lint.py"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
