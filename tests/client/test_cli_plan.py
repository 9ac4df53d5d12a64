"""`lookalike duplicates --apply` and `--undo`."""

from __future__ import annotations

from pathlib import Path

import pytest
from lookalike.cli.app import run


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    for name in ("best.jpg", "copy.jpg"):
        (tmp_path / name).write_bytes(b"12345")
    rows = [f"1,keep,{tmp_path}/best.jpg,5", f"1,move,{tmp_path}/copy.jpg,5", f"1,move,{tmp_path}/gone.jpg,5"]
    (tmp_path / "plan.csv").write_text("\n".join(["group,action,path,bytes", *rows, ""]))
    return tmp_path / "plan.csv"


def test_a_plan_is_only_shown_unless_one_says_yes(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["duplicates", "--apply", str(plan), "--move-to", str(tmp_path / "away")]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path}/copy.jpg -> {tmp_path}/away{tmp_path}/copy.jpg\n"
    assert "1 photo, 5 bytes, would be moved; nothing was." in said.err
    assert "gone.jpg: No such file or directory" in said.err
    assert not (tmp_path / "away").exists()


def test_a_plan_is_carried_out_and_undone(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["duplicates", "--yes", "--apply", str(plan), "--move-to", str(tmp_path / "away")]) == 0
    assert "1 photo moved to" in capsys.readouterr().out
    assert not (tmp_path / "copy.jpg").exists()
    assert run(["duplicates", "--undo", str(tmp_path / "away")]) == 0
    assert (tmp_path / "copy.jpg").read_bytes() == b"12345"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--apply", "plan.csv"], "--apply needs --move-to DIR"),
        (["--apply", "none.csv", "--move-to", "away"], "File 'none.csv' does not exist"),
        (["--move-to", "away", "."], "belong to --apply PLAN"),
        (["--undo", "empty"], "nothing was moved to empty"),
        (["--apply", "bad.csv", "--move-to", "away"], "no column 'group'"),
    ],
)
def test_misuse_is_told_in_one_line(
    plan: Path,
    tmp_path: Path,
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("name\nx\n")
    assert run(["duplicates", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
