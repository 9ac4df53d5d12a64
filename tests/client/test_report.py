"""Reports of duplicate groups, made from real photos in a folder."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lookalike.records import DuplicateGroup, DuplicateMember, Failure
from lookalike.report import Report, same_pixels, write_csv, write_html, write_json
from lookalike.report.html import size
from lookalike.report.thumbnails import thumbnail, thumbnails
from photos import encode, photo, resized
from PIL import Image

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&.jpg"


def member(path: Path, score: float = 1.0, exact: bool = False, **attributes: Any) -> DuplicateMember:
    return DuplicateMember(str(path), score, exact, attributes)


def group(*members: DuplicateMember) -> DuplicateGroup:
    return DuplicateGroup(members[0].id, members)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A photo, the same file again under a hostile name, and a smaller copy."""
    folder = tmp_path / "photos"
    folder.mkdir()
    original = encode(photo("coffee"), quality=90)
    (folder / "coffee.jpg").write_bytes(original)
    (folder / HOSTILE.replace("/", "\u2215")).write_bytes(original)
    (folder / "small.png").write_bytes(encode(resized(photo("coffee"), 0.3), "PNG"))
    return folder


@pytest.fixture
def report(folder: Path) -> Report:
    again = folder / HOSTILE.replace("/", "\u2215")
    members = [
        member(folder / "coffee.jpg", exact=True, width=600, height=400, bytes=1000, modified=0.5),
        member(again, exact=True, width=600, height=400, bytes=1000),
        member(folder / "small.png", 0.98765, width=180, height=120, bytes=234),
    ]
    return Report(
        groups=[group(*members)],
        paths={m.id: Path(m.id) for m in members},
        photos_seen=10,
        unreadable=[Failure(f"{folder}/<b>cut.jpg", "", "IMAGE_TRUNCATED", "the file ends too early")],
        sources=[str(folder)],
        recipe="near_duplicate",
        threshold=0.9,
        policy="largest",
    )


def page(report: Report, path: Path) -> str:
    write_html(report, path)
    return path.read_text("utf-8")


def embedded(html: str, number: int = 0) -> list[str]:
    found = re.search(rf'id="t{number}">([^<]*)</script>', html)
    assert found
    return found[1].split()


def test_the_counts_add_up(report: Report) -> None:
    assert (report.kept, report.redundant, len(report.unreadable)) == (7, 2, 1)
    assert report.photos_seen == report.kept + report.redundant + len(report.unreadable)
    assert report.bytes_freed == 1234


def test_the_page_shows_the_counts(report: Report, tmp_path: Path) -> None:
    html = page(report, tmp_path / "report.html")
    assert 'aria-label="10 photos: 7 to keep, 2 redundant, 1 unreadable"' in html
    assert "1.2 kB" in html


def test_the_page_needs_nothing_from_outside(report: Report, tmp_path: Path) -> None:
    html = page(report, tmp_path / "report.html")
    assert "http://" not in html
    assert "https://" not in html
    assert "default-src 'none'" in html


def test_the_thumbnails_are_small_upright_pictures(report: Report, tmp_path: Path) -> None:
    first, again, small = embedded(page(report, tmp_path / "report.html"))
    with Image.open(io.BytesIO(base64.b64decode(first))) as picture:
        assert (picture.format, max(picture.size)) == ("JPEG", 288)
    assert again == "="  # the same file has the same picture
    assert Image.open(io.BytesIO(base64.b64decode(small))).size == (180, 120)


def test_names_of_files_cannot_become_markup(report: Report, tmp_path: Path) -> None:
    html = page(report, tmp_path / "report.html")
    assert "<img src=x" not in html
    assert "<b>cut" not in html
    data = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)
    assert data
    assert json.loads(data[1])["groups"][0][1]["path"].endswith("onerror=alert(1)>\"'&.jpg")


def test_a_file_that_has_vanished_gets_a_placeholder(report: Report, tmp_path: Path, folder: Path) -> None:
    (folder / "small.png").unlink()
    assert embedded(page(report, tmp_path / "report.html"))[2] == "-"


def test_a_file_that_is_no_picture_any_more_gets_a_placeholder(
    report: Report, tmp_path: Path, folder: Path
) -> None:
    (folder / "small.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    assert embedded(page(report, tmp_path / "report.html"))[2] == "-"


def test_an_item_without_a_file_here_gets_a_placeholder(tmp_path: Path) -> None:
    items = group(DuplicateMember("sku-1", 1.0, True, {}), DuplicateMember("sku-2", 0.95, False, {}))
    assert embedded(page(Report([items], {}, photos_seen=2), tmp_path / "report.html")) == ["-", "-"]


def test_of_a_huge_group_only_the_first_photos_are_embedded(folder: Path, tmp_path: Path) -> None:
    path = folder / "small.png"
    members = [DuplicateMember(f"item{i}", 0.95, False, {}) for i in range(100)]
    report = Report([group(*members)], {m.id: path for m in members}, photos_seen=100)
    words = embedded(page(report, tmp_path / "report.html"))
    assert [word == "~" for word in words] == [False] * 60 + [True] * 40


def test_a_search_without_duplicates_gives_a_page_that_says_so(tmp_path: Path) -> None:
    assert "No duplicates found" in page(Report([], {}, photos_seen=3), tmp_path / "report.html")


def test_progress_counts_the_groups(report: Report, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_html(report, tmp_path / "report.html", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]


def test_a_report_that_fails_leaves_the_old_one_and_nothing_else(report: Report, tmp_path: Path) -> None:
    target = tmp_path / "out" / "report.html"
    target.parent.mkdir()
    target.write_text("the old one")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_html(report, target, progress=interrupt)
    assert target.read_text() == "the old one"
    assert os.listdir(target.parent) == ["report.html"]


def test_memory_does_not_grow_with_the_number_of_groups(folder: Path, tmp_path: Path) -> None:
    (folder / "noise.png").write_bytes(encode(Image.effect_noise((288, 288), 90), "PNG"))
    members = [DuplicateMember(str(folder / "noise.png"), 0.95, False, {}) for _ in range(2)]
    report = Report([group(*members)] * 300, {members[0].id: folder / "noise.png"}, photos_seen=600)
    tracemalloc.start()
    write_html(report, tmp_path / "report.html")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (tmp_path / "report.html").stat().st_size / 2


def test_csv_has_one_row_for_each_photo(report: Report, tmp_path: Path, folder: Path) -> None:
    write_csv(report, tmp_path / "groups.csv")
    with (tmp_path / "groups.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["action"] for row in rows] == ["keep", "move", "move"]
    assert [row["identical"] for row in rows] == ["true", "true", "false"]
    assert rows[0]["modified"] == "1970-01-01T00:00:00.500000+00:00"
    assert rows[1]["path"].endswith("onerror=alert(1)>\"'&.jpg")
    assert rows[2] == {
        "group": "1",
        "action": "move",
        "id": str(folder / "small.png"),
        "path": str(folder / "small.png"),
        "similarity": "0.987650",
        "identical": "false",
        "same_pixels": "false",
        "width": "180",
        "height": "120",
        "bytes": "234",
        "modified": "",
    }


def test_json_holds_the_whole_report_under_a_version(report: Report, tmp_path: Path, folder: Path) -> None:
    write_json(report, tmp_path / "groups.json")
    said = json.loads((tmp_path / "groups.json").read_text())
    assert said["version"] == 1
    assert said["counts"] == {
        "photos_seen": 10,
        "kept": 7,
        "redundant": 2,
        "unreadable": 1,
        "groups": 1,
        "split": 0,
        "bytes_freed": 1234,
    }
    assert said["unreadable"][0]["reason"] == "IMAGE_TRUNCATED"
    assert said["groups"][0]["representative"] == str(folder / "coffee.jpg")
    assert [m["similarity"] for m in said["groups"][0]["members"]] == [1.0, 1.0, 0.98765]


def test_another_file_with_the_same_pixels_is_told_from_one_that_only_looks_alike(folder: Path) -> None:
    picture = photo("coffee").convert("RGB")
    picture.save(folder / "a.png")
    picture.save(folder / "b.bmp")
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    picture.rotate(180).save(folder / "c.png", exif=turned)
    changed = picture.copy()
    changed.putpixel((0, 0), (1, 2, 3))
    changed.save(folder / "d.png")
    size = {"width": picture.width, "height": picture.height}
    names = ["a.png", "b.bmp", "c.png", "d.png", "vanished.png"]
    found = group(*(member(folder / name, 0.9999, **size) for name in names))
    paths = {m.id: Path(m.id) for m in found.members}
    assert {Path(name).name for name in same_pixels([found], paths)} == {"b.bmp", "c.png"}


def test_a_report_states_the_recall_of_a_search_and_what_was_asked(report: Report, tmp_path: Path) -> None:
    sampled = replace(
        report, sampled=(99, 100), precision=0.95, reached=(0.96, 0.951, 0.97), against=["/archive"], split=7
    )
    write_json(sampled, tmp_path / "groups.json")
    said = json.loads((tmp_path / "groups.json").read_text())
    assert said["recall"] == {
        "estimate": 0.99,
        "low": pytest.approx(0.946, abs=1e-3),
        "high": pytest.approx(0.998, abs=1e-3),
    }
    assert said["precision_reached"]["low"] == 0.951
    assert (said["precision"], said["against"]) == (0.95, ["/archive"])
    write_html(sampled, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "recall <b>0.9900</b> (0.9455 to 0.9982, by sample)" in page
    assert "for a precision of <b>0.95</b>" in page
    assert said["counts"]["split"] == 7
    assert "<b>7</b> kept out of a group" in page
    assert "precision <b>0.9600</b> (0.9510 to 0.9700, by calibration)" in page
    write_html(report, tmp_path / "report.html")
    assert "every pair compared" in (tmp_path / "report.html").read_text()


def test_names_that_are_no_utf8_survive_in_every_report(folder: Path, tmp_path: Path) -> None:
    odd = os.fsencode(folder) + b"/caf\xe9.jpg"
    Path(os.fsdecode(odd)).write_bytes((folder / "coffee.jpg").read_bytes())
    path = Path(os.fsdecode(odd))
    report = Report(
        [group(member(path), member(folder / "coffee.jpg", 0.9))], {str(path): path}, photos_seen=2
    )
    assert embedded(page(report, tmp_path / "report.html"))[0] != "-"
    write_csv(report, tmp_path / "groups.csv")
    assert odd in (tmp_path / "groups.csv").read_bytes()
    write_json(report, tmp_path / "groups.json")
    stored = json.loads((tmp_path / "groups.json").read_text())["groups"][0]["members"][0]["path"]
    assert os.fsencode(stored) == odd


@pytest.mark.parametrize("value", ["many", True, -1, float("nan"), float("inf"), None, 10**30])
def test_attributes_that_make_no_sense_are_left_out(value: Any, folder: Path, tmp_path: Path) -> None:
    odd = member(folder / "coffee.jpg", width=value, bytes=value, modified=value)
    report = Report([group(odd, odd)], {odd.id: folder / "coffee.jpg"}, photos_seen=2)
    write_csv(report, tmp_path / "groups.csv")
    write_html(report, tmp_path / "report.html")
    assert report.bytes_freed in (0, 10**30)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_a_thumbnail_of_any_kind_of_picture_is_a_jpeg(mode: str, tmp_path: Path) -> None:
    grey = Image.linear_gradient("L")
    image = Image.new("I;16", (256, 256), 40_000) if mode == "I;16" else grey.convert(mode)
    path = tmp_path / "picture.tiff"
    image.save(path)
    data = thumbnail(path, 64)
    assert data
    assert Image.open(io.BytesIO(data)).size == (64, 64)


def test_a_16_bit_picture_keeps_its_brightness(tmp_path: Path) -> None:
    Image.new("I;16", (100, 100), 128 * 256).save(tmp_path / "grey.png")
    data = thumbnail(tmp_path / "grey.png", 64)
    assert data
    assert Image.open(io.BytesIO(data)).getpixel((32, 32)) == pytest.approx((128, 128, 128), abs=2)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (100, 100), (0, 0, 0, 0)).save(tmp_path / "glass.png")
    data = thumbnail(tmp_path / "glass.png", 64)
    assert data
    assert Image.open(io.BytesIO(data)).getpixel((32, 32)) == (255, 255, 255)


def test_a_thumbnail_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # to be turned a quarter
    photo("coffee").save(tmp_path / "turned.jpg", exif=exif)
    data = thumbnail(tmp_path / "turned.jpg", 60)
    assert data
    assert Image.open(io.BytesIO(data)).size == (40, 60)


def test_thumbnails_come_in_order_whatever_fails_between(folder: Path) -> None:
    paths = [folder / "coffee.jpg", folder / "missing", None, folder / "small.png"] * 40
    assert [data is None for data in thumbnails(paths, 32)] == [False, True, True, False] * 40


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9_949, "9.9 kB"), (9_951, "10 kB"), (999_500, "1.0 MB"),
     (2_345_678_901, "2.3 GB"), (10**16, "10,000 TB")],
)  # fmt: skip
def test_sizes_are_written_for_people(count: int, text: str) -> None:
    assert size(count) == text
