"""The road end to end: real photos, real weights, a real server and a real client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lookalike import Client
from photos import Archive, cropped, encode, photo, resized


def lookalike(*arguments: str | Path, data: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a user would."""
    command = [Path(sys.executable).parent / "lookalike", *arguments, "--data", data]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_duplicates_of_a_folder_are_grouped_as_they_were_planted(archive: Archive, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    result = lookalike("duplicates", archive.folder, "-o", report, "--json", data=tmp_path / "data")
    assert result.returncode == 0, result.stderr
    groups = json.loads(result.stdout)["groups"]
    found = {
        frozenset(str(Path(m["id"]).relative_to(archive.folder)) for m in group["members"])
        for group in groups
    }
    assert found == archive.groups
    for name in archive.unreadable:
        assert name in result.stderr
    assert "data:image/" in report.read_text()


def test_an_item_is_found_by_a_changed_copy_of_its_image(client: Client, archive: Archive) -> None:
    photos = sorted(archive.folder.glob("*.jpg"))
    shop = client.create_collection("changed-copies")
    report = shop.add(photos, ids=[path.stem for path in photos])
    assert {Path(failure.source).name for failure in report.failed} == {"empty.jpg", "cut.jpg"}
    query = encode(resized(cropped(photo("chelsea"), 0.1), 0.5), quality=40)
    assert shop.search(query, k=1)[0].id in {"chelsea", "chelsea-again"}


def test_a_search_by_vector_or_id_finds_what_a_search_by_image_finds(client: Client) -> None:
    names = ["coffee", "astronaut", "rocket", "retina"]
    shop = client.create_collection("three-ways")
    shop.add([photo(name) for name in names], ids=names)
    by_image = shop.search(photo("coffee"), k=4)
    by_vector = shop.search(vector=client.embed(photo("coffee")), k=4)
    by_id = shop.search(id="coffee", k=3)
    assert [hit.id for hit in by_image] == [hit.id for hit in by_vector]
    assert [hit.id for hit in by_id] == [hit.id for hit in by_image[1:]]
    assert by_image[0].score == pytest.approx(1, abs=1e-5)


def test_attributes_come_back_as_they_were_written_and_filter_the_search(client: Client) -> None:
    shop = client.create_collection("attributes", recipe="semantic")
    rows = [{"price": price, "serial": 2**60 + price, "tags": ["a", None]} for price in (10, 20, 30)]
    shop.add(
        [photo(name) for name in ("coffee", "astronaut", "rocket")], ids=["a", "b", "c"], attributes=rows
    )
    hits = shop.search(photo("coffee"), k=3, where="price >= 20")
    assert {hit.id for hit in hits} == {"b", "c"}
    assert {hit.attributes["serial"] for hit in hits} == {2**60 + 20, 2**60 + 30}


def test_a_collection_is_there_after_a_restart(tmp_path: Path) -> None:
    with Client.embedded(tmp_path) as first:
        shop = first.create_collection("kept")
        shop.add([photo("coffee")], ids=["coffee"], attributes=[{"n": 1}])
        vector = first.embed(photo("coffee"))
    with Client.embedded(tmp_path) as second:
        assert np.array_equal(second.embed(photo("coffee")), vector)
        hit = second.collection("kept").search(vector=vector, k=1)[0]
    assert (hit.id, hit.attributes) == ("coffee", {"n": 1})
