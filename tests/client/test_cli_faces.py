"""`lookalike faces fetch` and what it refuses. Nothing is downloaded here."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from lookalike.cli.app import run


def test_a_folder_without_the_archives_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["faces", "fetch", str(tmp_path / "f.safetensors"), "--archives", str(tmp_path)]) == 1
    assert "there is no facenet_pytorch-*.whl in" in capsys.readouterr().err


def test_other_archives_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("facenet_pytorch-2.6.0-py3-none-any.whl", "vladmandic-face-api-1.7.15.tgz"):
        (tmp_path / name).write_bytes(b"something else")
    assert run(["faces", "fetch", str(tmp_path / "f.safetensors"), "--archives", str(tmp_path)]) == 1
    assert "holds no facenet_pytorch/data/pnet.pt" in capsys.readouterr().err


def test_nowhere_to_write_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["faces", "fetch", str(tmp_path / "no" / "f.safetensors")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_download_that_fails_names_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(arguments, 1, "", "no index reachable")

    monkeypatch.setattr(subprocess, "run", fail)
    assert run(["faces", "fetch", str(tmp_path / "f.safetensors")]) == 1
    told = capsys.readouterr().err
    assert "pip download --no-deps --dest . facenet-pytorch==2.6.0` failed: no index reachable" in told
    assert "--archives" in told
