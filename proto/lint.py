"""Checks the style of the protos with buf, offline.

    python proto/lint.py [--fix]

`buf lint` (STANDARD and COMMENTS) and `buf format`. buf wants every import inside its workspace, so the
protos and the googleapis that they import are put side by side in a temporary folder first. With --fix the
protos are formatted in place.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import google.rpc

PROTO_ROOT = Path(__file__).resolve().parent
BUF = Path(sys.executable).parent / "buf"
WORKSPACE = """\
version: v2
modules:
  - path: proto
    lint:
      use: [STANDARD, COMMENTS]
  - path: googleapis
    lint:
      ignore: [googleapis]
"""


def lint(fix: bool) -> int:
    """Returns the exit status: 0 when nothing is to be said."""
    if fix:
        return subprocess.run([BUF, "format", "--write", PROTO_ROOT / "lookalike"]).returncode
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        (workspace / "buf.yaml").write_text(WORKSPACE)
        shutil.copytree(PROTO_ROOT / "lookalike", workspace / "proto" / "lookalike")
        rpc = Path(next(iter(google.rpc.__path__)))
        (workspace / "googleapis/google/rpc").mkdir(parents=True)
        shutil.copy(rpc / "status.proto", workspace / "googleapis/google/rpc")
        checks = (["lint"], ["format", "--diff", "--exit-code", "proto"])
        return max(subprocess.run([BUF, *check], cwd=workspace).returncode for check in checks)


if __name__ == "__main__":
    raise SystemExit(lint(fix="--fix" in sys.argv[1:]))
