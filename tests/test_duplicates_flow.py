"""`lookalike duplicates` on real photos and a real server, with folders as people have them."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest
from lookalike import Client
from lookalike.cli.app import run
from photos import encode, photo, resized


@pytest.fixture
def albums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a: a photo, a copy of it, another photo; b: copies of both; archive: the first one again."""
    monkeypatch.chdir(tmp_path)
    coffee, cat = photo("coffee"), photo("chelsea")
    for name, picture in {
        "a/coffee.jpg": coffee,
        "a/small.jpg": resized(coffee, 0.5),
        "a/cat.jpg": cat,
        "b/cat.jpg": resized(cat, 0.6),
        "b/coffee.jpg": resized(coffee, 0.7),
        "archive/2019/coffee.jpg": coffee,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encode(picture))
    return tmp_path


def plan(client: Client, *arguments: str) -> dict[str, str]:
    """What a search proposes, by the last two parts of a path."""
    assert run(["duplicates", *arguments, "--csv", "plan.csv", "--server", client.target]) == 0
    with Path("plan.csv").open(newline="") as file:
        return {"/".join(Path(row["path"]).parts[-2:]): row["action"] for row in csv.DictReader(file)}


def test_copies_of_what_is_in_other_folders_are_found_and_those_stay(client: Client, albums: Path) -> None:
    assert plan(client, "a", "b", "--against", "archive") == {
        "2019/coffee.jpg": "keep",
        "a/coffee.jpg": "move",
        "a/small.jpg": "move",
        "b/coffee.jpg": "move",
    }


def test_a_folder_inside_of_another_can_be_the_reference(client: Client, albums: Path) -> None:
    found = plan(client, ".", "--against", "archive")
    assert [path for path, action in found.items() if action == "keep"] == ["2019/coffee.jpg"]
    assert len(found) == 4


def test_overlapping_folders_and_links_in_circles_count_each_file_once(client: Client, albums: Path) -> None:
    (albums / "a" / "again").symlink_to(albums)
    (albums / "a" / "link.jpg").symlink_to(albums / "a" / "coffee.jpg")
    (albums / "a" / "self.jpg").symlink_to(albums / "a" / "self.jpg")
    found = plan(client, "a", ".", "a/again/b")
    assert sorted(found) == sorted(
        ["a/coffee.jpg", "a/small.jpg", "b/coffee.jpg", "2019/coffee.jpg", "a/cat.jpg", "b/cat.jpg"]
    )


def test_copies_without_loss_are_told_by_their_pixels(client: Client, albums: Path) -> None:
    picture = photo("coffee")
    (albums / "c").mkdir()
    for name in ("x.png", "y.bmp"):
        picture.save(albums / "c" / name)
    assert run(["duplicates", "c", "--csv", "plan.csv", "--server", client.target]) == 0
    with Path("plan.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["identical"], row["same_pixels"]) for row in rows] == [("true", "true"), ("false", "true")]


def test_all_identical_photos_are_one_group_and_different_ones_none(client: Client, albums: Path) -> None:
    for number in range(30):
        shutil.copy(albums / "a" / "cat.jpg", albums / "archive" / f"{number}.jpg")
    (albums / "archive" / "2019" / "coffee.jpg").unlink()
    assert len(plan(client, "archive")) == 30
    (albums / "a" / "small.jpg").unlink()
    assert plan(client, "a") == {}


def test_files_that_change_vanish_or_cannot_be_read_do_not_keep_the_others(
    client: Client, albums: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (albums / "a" / "broken.jpg").write_bytes((albums / "a" / "cat.jpg").read_bytes()[:2000])
    os.mkfifo(albums / "a" / "pipe.jpg")
    (albums / "a" / "gone.jpg").write_bytes(b"x")
    real = Client.create_collection

    def late(self: Client, *arguments: object, **options: object) -> object:
        (albums / "a" / "gone.jpg").unlink(missing_ok=True)
        (albums / "a" / "small.jpg").write_bytes(encode(resized(photo("coffee"), 0.4)))
        return real(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "create_collection", late)
    assert plan(client, "a") == {"a/coffee.jpg": "keep", "a/small.jpg": "move"}
    told = capsys.readouterr().err
    assert "3 photos could not be read" in told
    assert all(name in told for name in ("broken.jpg", "pipe.jpg", "gone.jpg"))
