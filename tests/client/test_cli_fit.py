"""`lookalike fit` and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from lookalike.cli.app import run
from photos import encode, photo


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(encode(photo("coffee"), quality=50 + number))
    return folder


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["--images", "{album}"], 1, "3 readable photos are too few to fit"),
        (["--images", "{album}", "--recipe", "near"], 2, "there is no recipe 'near'"),
        (["--images", "{album}/nowhere"], 2, "there is no file or folder"),
        (["--images", "{album}", "-o", "{album}/no/where.safetensors"], 2, "there is no folder"),
        (["--images", "{album}", "--copies", "0"], 2, "--copies"),
        ([], 2, "--images"),
    ],
)
def test_misuse_is_one_clear_line(
    album: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, word: str
) -> None:
    assert run(["fit", *(argument.format(album=album) for argument in arguments)]) == status
    told = capsys.readouterr().err
    assert word in told
    assert "Traceback" not in told
