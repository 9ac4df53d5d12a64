"""Writes the Python stubs of the protos into client/lookalike/v1.

    python proto/generate.py [OUTPUT_ROOT]

The generators are old and pinned on purpose (see pyproject.toml): stubs run with the protobuf they were
made for and later ones, so an old generator asks least of those who install the client. The comments of the
protos become the docstrings of the .pyi files.
"""

from __future__ import annotations

import shutil
import sys
from importlib.resources import files
from pathlib import Path

import google.rpc
from grpc_tools import protoc

PROTO_ROOT = Path(__file__).resolve().parent
STUB_ROOT = PROTO_ROOT.parent / "client"


def generate(output_root: Path) -> None:
    """Writes lookalike/v1/*_pb2*.py and .pyi below `output_root`, which must exist."""
    googleapis = Path(next(iter(google.rpc.__path__))).parents[1]
    plugin_dir = Path(sys.executable).parent
    plugins = [
        f"--plugin={name}={shutil.which(name, path=str(plugin_dir)) or name}"
        for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
    ]
    protos = [str(path.relative_to(PROTO_ROOT)) for path in sorted(PROTO_ROOT.glob("lookalike/v1/*.proto"))]
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTO_ROOT}",
            f"--proto_path={googleapis}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            *plugins,
            f"--python_out={output_root}",
            f"--grpc_python_out={output_root}",
            f"--mypy_out={output_root}",
            f"--mypy_grpc_out={output_root}",
            *protos,
        ]
    )
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else STUB_ROOT)
