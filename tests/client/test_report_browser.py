"""The report in a real browser; skipped where there is none (apt install chromium)."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, browser_page, find_browser
from lookalike.records import DuplicateGroup, DuplicateMember
from lookalike.report import Report, write_html
from photos import encode, photo, resized

pytestmark = pytest.mark.skipif(not find_browser(), reason="no Chromium on this machine")

GROUPS = 10_000


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One group of real photos, among them a hostile name, and thousands of items that have no file."""
    folder = tmp_path_factory.mktemp("photos")
    names = ["coffee.jpg", "<img src=x onerror=document.title='owned'>.jpg", "small.jpg"]
    for name in names[:2]:
        (folder / name).write_bytes(encode(photo("coffee")))
    (folder / names[2]).write_bytes(encode(resized(photo("coffee"), 0.5)))
    scores = [1.0, 1.0, 0.9876]
    members = tuple(
        DuplicateMember(str(folder / n), s, s == 1.0, {"width": 600, "height": 400, "bytes": 1000})
        for n, s in zip(names, scores, strict=True)
    )
    groups = [DuplicateGroup(members[0].id, members)]
    for number in range(1, GROUPS):
        pair = tuple(DuplicateMember(f"item {number}/{i}", 1.0 - 0.05 * i, not i, {}) for i in range(2))
        groups.append(DuplicateGroup(pair[0].id, pair))
    path = folder / "report.html"
    paths = {m.id: Path(m.id) for m in members}
    write_html(Report(groups, paths, photos_seen=2 * GROUPS + 1, same_pixels={"item 1/1"}), path)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser_page(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page, report: Path) -> Iterator[Page]:
    """The report, freshly opened; the browser must have nothing to complain about in the end."""
    browser.complaints.clear()
    browser.open(report)
    browser.settle()
    yield browser
    browser.run("localStorage.clear()")
    assert browser.complaints == []


def text(page: Page, selector: str) -> str:
    return str(page.run(f"document.querySelector({selector!r})?.textContent ?? ''"))


def count(page: Page, selector: str) -> int:
    return int(page.run(f"document.querySelectorAll({selector!r}).length"))


def test_thousands_of_groups_open_and_only_those_near_the_screen_are_built(page: Page) -> None:
    assert text(page, "#count") == f"{GROUPS:,} groups"
    assert count(page, ".group") == GROUPS
    assert 0 < count(page, ".photo") < 200


def test_thumbnails_are_painted(page: Page) -> None:
    page.run("Promise.all([...document.images].map((image) => image.decode()))")
    assert (
        page.run("[...document.querySelectorAll('.frame img')].map((image) => image.naturalWidth)")
        == [128] * 3  # of so many photos the thumbnails are small
    )


def test_a_hostile_name_stays_a_name(page: Page) -> None:
    assert "onerror" in text(page, ".photo:nth-child(2) .name")
    assert page.run("document.title") == "Duplicate photos · Lookalike"


def test_the_last_group_is_built_when_one_scrolls_there(page: Page) -> None:
    page.run("scrollTo(0, document.body.scrollHeight)")
    page.settle()
    assert count(page, ".group:last-child .photo") == 2


def test_finding_shows_the_groups_that_fit(page: Page) -> None:
    page.press("/")
    page.call("Input.insertText", text=f"item {GROUPS - 1}/")
    time.sleep(0.2)
    page.settle()
    assert text(page, "#count") == f"1 of {GROUPS:,} groups"
    assert text(page, ".group h2") == f"Group {GROUPS:,}"


def show(page: Page, kind: str) -> None:
    page.run(
        f"(document.getElementById('show').value = '{kind}',"
        " document.getElementById('show').dispatchEvent(new Event('change')))"
    )


def test_groups_can_be_shown_by_kind_and_the_way_back_is_offered(page: Page) -> None:
    assert text(page, ".group:nth-child(2) .note") == "1 with the same pixels"
    show(page, "near")
    assert text(page, "#count") == f"{GROUPS - 1:,} of {GROUPS:,} groups"
    show(page, "identical")
    assert page.run("document.getElementById('none').hidden") is False
    page.run("document.getElementById('reset').click()")
    assert text(page, "#count") == f"{GROUPS:,} groups"


def test_the_keyboard_moves_marks_and_compares(page: Page) -> None:
    page.press("j")
    page.press("ArrowRight")
    page.press(" ")
    assert text(page, ".photo:nth-child(2) .mark") == "Keep"
    assert text(page, "#plan").startswith(f"{GROUPS:,} photos to move")
    page.press("Enter")
    page.settle()
    assert count(page, "#compare[open] .stage.side img") == 2
    page.press("d")
    page.settle()
    assert count(page, ".stage.difference .canvas img") == 2
    page.press("ArrowRight")
    assert "copy 2 of 2" in text(page, "#compare h2")
    page.press("Escape")
    page.settle()
    assert count(page, "#compare[open]") == 0
    assert page.run("document.activeElement.dataset.place") == "2"
    page.press("j")
    assert page.run("document.activeElement.closest('.group').dataset.group") == "1"


def test_marks_are_still_there_after_a_reload(page: Page, report: Path) -> None:
    page.press("j")
    page.press("a")
    page.open(report)
    page.settle()
    assert text(page, ".photo:nth-child(3) .mark") == "Keep"
    assert text(page, "#plan").startswith(f"{GROUPS - 1:,} photos to move")


def test_what_is_of_the_reference_cannot_be_marked(page: Page, report: Path, tmp_path: Path) -> None:
    text_ = report.read_text().replace('"similarity":1.0,', '"similarity":1.0,"protected":true,', 1)
    (tmp_path / "against.html").write_text(text_)
    page.open(tmp_path / "against.html")
    page.settle()
    page.press("j")
    page.press(" ")
    assert text(page, ".photo:nth-child(1) .mark") == "Keep"
    page.press("ArrowRight")
    page.press(" ")
    assert text(page, ".photo:nth-child(2) .mark") == "Keep"


def test_ten_thousand_groups_are_on_the_screen_within_seconds(page: Page, report: Path) -> None:
    page.open(report)
    page.settle()
    timing = "performance.getEntriesByType('navigation')[0].domComplete"
    assert float(page.run(timing)) < 10_000


def test_the_decisions_are_exported_in_the_columns_of_the_csv(page: Page, tmp_path: Path) -> None:
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.press("j")
    page.press(" ")  # the best is to go as well
    assert "Nothing of this group is kept" in text(page, ".group .alert")
    page.run("document.getElementById('export').click()")
    deadline = time.monotonic() + 60
    while not (tmp_path / "plan.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with (tmp_path / "plan.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * GROUPS + 1
    assert [row["action"] for row in rows[:5]] == ["move", "move", "move", "keep", "move"]
    assert rows[1]["path"].endswith("onerror=document.title='owned'>.jpg")
