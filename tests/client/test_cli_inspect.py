from __future__ import annotations

from pathlib import Path

import pytest
from lookalike.cli.app import run
from photos import encode, photo
from PIL import Image


@pytest.fixture
def cat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.jpg").write_bytes(encode(photo("chelsea")))
    return tmp_path / "cat.jpg"


def test_a_picture_of_a_node_is_written(cat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "cat.jpg", "--node", "blocks.2", "--channels", "4"]) == 0
    assert capsys.readouterr().out == "cat.blocks.2.png\n"
    with Image.open("cat.blocks.2.png") as picture:
        assert picture.size == (908, 452)


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["cat.jpg", "--node", "block.2"], 2, "blocks.2"),
        (["cat.jpg", "--node", "x", "--backbone", "resnet_50"], 2, "resnet50"),
        (["cat.jpg", "--node", "blocks.2", "-o", "cat.wrong"], 2, "no ending of an image"),
        (["dog.jpg", "--node", "blocks.2"], 2, "dog.jpg"),
        (["text.jpg", "--node", "blocks.2"], 1, "text.jpg: the file begins with"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    arguments: list[str], status: int, told: str, cat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cat.with_name("text.jpg").write_text("no picture")
    assert run(["inspect", *arguments]) == status
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
