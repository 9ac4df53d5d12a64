"""Plans: moving redundant photos away, and back."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from pathlib import Path

import pytest
from lookalike.errors import InvalidArgument
from lookalike.plan import LOG, Left, carry_out, prepare, read_plan, undo
from lookalike.records import DuplicateGroup, DuplicateMember
from lookalike.report import Report, write_csv


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("best.jpg", "copy.jpg", "sub/copy.jpg"):
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def plan(photos: Path, tmp_path: Path) -> Path:
    """The CSV of a report: one group, the best to keep and two copies to move."""
    files = [photos / name for name in ("best.jpg", "copy.jpg", "sub/copy.jpg")]
    members = tuple(DuplicateMember(str(f), 1.0, True, {"bytes": f.stat().st_size}) for f in files)
    report = Report([DuplicateGroup(members[0].id, members)], {str(f): f for f in files}, photos_seen=3)
    write_csv(report, tmp_path / "plan.csv")
    return tmp_path / "plan.csv"


def apply(plan: Path, folder: Path) -> list[Left]:
    moves, left = prepare(read_plan(plan), folder)
    return left + carry_out(moves, folder)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_copies_are_moved_under_their_whole_paths_and_come_back(
    photos: Path, plan: Path, tmp_path: Path
) -> None:
    before = everything(photos)
    away = tmp_path / "away"
    assert apply(plan, away) == []
    assert set(everything(photos)) == {"best.jpg"}
    moved = away / photos.relative_to("/") / "sub/copy.jpg"
    assert moved.read_bytes() == b"sub/copy.jpg"
    assert undo(away) == []
    assert everything(photos) == before
    assert not (away / LOG).exists()


def test_preparing_touches_nothing(photos: Path, plan: Path, tmp_path: Path) -> None:
    moves, left = prepare(read_plan(plan), tmp_path / "away")
    assert (len(moves), left) == (2, [])
    assert len(everything(photos)) == 3
    assert not (tmp_path / "away").exists()


def test_a_group_keeps_its_copies_when_the_kept_photo_has_gone(
    photos: Path, plan: Path, tmp_path: Path
) -> None:
    (photos / "best.jpg").unlink()
    assert [stays.reason for stays in apply(plan, tmp_path / "away")] == [
        "no photo of its group that is kept is there"
    ] * 2
    assert set(everything(photos)) == {"copy.jpg", "sub/copy.jpg"}


def test_a_plan_that_keeps_nothing_of_a_group_moves_nothing(photos: Path, plan: Path, tmp_path: Path) -> None:
    plan.write_text(plan.read_text().replace(",keep,", ",move,"))
    assert len(apply(plan, tmp_path / "away")) == 3
    assert len(everything(photos)) == 3


def test_a_file_that_has_changed_or_gone_since_is_left_and_the_rest_is_moved(
    photos: Path, plan: Path, tmp_path: Path
) -> None:
    (photos / "copy.jpg").write_bytes(b"edited since")
    left = apply(plan, tmp_path / "away")
    assert [(stays.path.name, stays.reason) for stays in left] == [
        ("copy.jpg", "it has changed since the plan was made")
    ]
    assert set(everything(photos)) == {"best.jpg", "copy.jpg"}


def test_the_kept_photo_is_not_moved_under_another_of_its_names(
    photos: Path, plan: Path, tmp_path: Path
) -> None:
    (photos / "best.jpg").unlink()
    (photos / "best.jpg").symlink_to(photos / "copy.jpg")
    (left,) = apply(plan, tmp_path / "away")
    assert left == Left(photos / "copy.jpg", "it is the photo that is kept, under another name")


def test_nothing_is_written_over_on_the_way_there(photos: Path, plan: Path, tmp_path: Path) -> None:
    taken = tmp_path / "away" / photos.relative_to("/") / "copy.jpg"
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"another")
    (left,) = apply(plan, tmp_path / "away")
    assert left.path == photos / "copy.jpg"
    assert taken.read_bytes() == b"another"


def test_nothing_is_written_over_on_the_way_back(photos: Path, plan: Path, tmp_path: Path) -> None:
    apply(plan, tmp_path / "away")
    (photos / "copy.jpg").write_bytes(b"a new one")
    assert len(undo(tmp_path / "away")) == 1
    assert (photos / "copy.jpg").read_bytes() == b"a new one"
    assert (photos / "sub/copy.jpg").exists()
    (photos / "copy.jpg").unlink()
    assert undo(tmp_path / "away") == []  # the notes were kept for what was left


def test_a_crash_between_two_moves_can_be_undone(photos: Path, plan: Path, tmp_path: Path) -> None:
    before = everything(photos)
    moves, _ = prepare(read_plan(plan), tmp_path / "away")

    def crash(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(moves, tmp_path / "away", crash)
    assert len(everything(photos)) == 2
    assert undo(tmp_path / "away") == []
    assert everything(photos) == before


@pytest.fixture
def across(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other folder is on another file system."""
    rename = os.rename

    def within(source: Path, target: Path) -> None:
        if source.parent != target.parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target)

    monkeypatch.setattr(os, "rename", within)


@pytest.mark.usefixtures("across")
def test_copies_are_moved_to_another_file_system_and_come_back(
    photos: Path, plan: Path, tmp_path: Path
) -> None:
    before = everything(photos)
    assert apply(plan, tmp_path / "away") == []
    assert set(everything(photos)) == {"best.jpg"}
    assert undo(tmp_path / "away") == []
    assert everything(photos) == before


@pytest.mark.usefixtures("across")
def test_a_photo_that_finds_no_room_stays_and_leaves_nothing_there(
    photos: Path, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copy2

    def half(source: Path, target: Path) -> None:
        copy(source, target)
        if source.parent.name == "sub":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copy2", half)
    away = tmp_path / "away"
    assert apply(plan, away) == [Left(photos / "sub/copy.jpg", "No space left on device")]
    assert [*everything(away)] == [LOG, str((photos / "copy.jpg").relative_to("/"))]
    assert undo(away) == []
    assert len(everything(photos)) == 3


def test_a_photo_whose_move_cannot_be_noted_stays(photos: Path, plan: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    line = f"{photos}/copy.jpg,{away}{photos}/copy.jpg\n"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(line) + 10, limits[1]))
    try:
        (stays,) = apply(plan, away)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert stays.path == photos / "sub/copy.jpg"
    assert (away / LOG).read_text() == line
    assert apply(plan, away)[0].reason == "No such file or directory"  # the first, which has gone already
    assert undo(away) == []
    assert len(everything(photos)) == 3


def test_applying_a_plan_twice_moves_nothing_more(photos: Path, plan: Path, tmp_path: Path) -> None:
    apply(plan, tmp_path / "away")
    left = apply(plan, tmp_path / "away")
    assert [stays.reason for stays in left] == ["No such file or directory"] * 2


def test_names_that_are_no_utf8_are_found_again(photos: Path, plan: Path, tmp_path: Path) -> None:
    odd = os.fsencode(photos) + b"/caf\xe9.jpg"
    (photos / "copy.jpg").rename(os.fsdecode(odd))
    plan.write_bytes(plan.read_bytes().replace(os.fsencode(photos / "copy.jpg"), odd))
    assert apply(plan, tmp_path / "away") == []
    assert undo(tmp_path / "away") == []
    assert os.path.exists(odd)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column 'group'"),
        ("group,path\n1,/a\n", "no column 'action'"),
        ("group,action,path\n1,delete,/a\n", "line 2: action is 'delete'"),
        ("group,action,path\n1,keep,/a\n1,move,a.jpg\n", "line 3: path is 'a.jpg'"),
        ("group,action,path\n1,move\n", "line 2: path is None"),
    ],
)
def test_what_is_no_plan_is_refused_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "plan.csv").write_text(text)
    with pytest.raises(InvalidArgument, match=said):
        read_plan(tmp_path / "plan.csv")


def test_undoing_where_nothing_was_moved_says_that_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        undo(tmp_path)
