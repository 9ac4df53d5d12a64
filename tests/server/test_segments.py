"""Segments: a collection opens from files, and from its rows wherever a file is not what was written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import lookalike_server.caretaker
import lookalike_server.reader
import lookalike_server.view
import numpy as np
import pytest
from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.segments import checksum, next_run
from made_rows import SPACE, pointing, row


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookalike_server.view, "PART_ROWS", 8)


def settled(shop: Collection) -> Collection:
    """Waits until the keeper has nothing left to do."""
    end = time.monotonic() + 60
    while next_run(shop._view) and time.monotonic() < end:
        time.sleep(0.01)
    assert not next_run(shop._view)
    return shop


def filled(root: Path, count: int = 50) -> None:
    with Catalog(root) as catalog:
        shop = catalog.create("shop", SPACE)
        for i in range(count):
            shop.upsert([row(f"{i:03}", 1, i / 10, n=i)])
        shop.delete(["003", "020"])
        settled(shop)


def nearest(shop: Collection) -> list[str]:
    return [hit.id for hit in shop.search(pointing(1, 0)[None], 100).hits[0]]


ALL = [f"{i:03}" for i in range(50) if i not in (3, 20)]


def test_full_parts_become_files_that_a_new_start_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    assert len(os.listdir(tmp_path / "shop" / "segments")) == 6
    read: list[tuple[int, int]] = []
    blocks = lookalike_server.reader.Reader.blocks
    monkeypatch.setattr(
        lookalike_server.reader.Reader,
        "blocks",
        lambda self, first=0, last=2**63 - 1: read.append((first, last)) or blocks(self, first, last),
    )
    with Catalog(tmp_path) as catalog:
        shop = catalog.get("shop")
        assert nearest(shop) == ALL
        assert [part.sealed for part in shop._view.parts] == [True] * 6 + [False]
    assert read == [(49, 2**63 - 1)]


def test_rows_deleted_or_replaced_after_sealing_stay_so_after_a_new_start(tmp_path: Path) -> None:
    filled(tmp_path)
    with Catalog(tmp_path) as catalog:
        shop = catalog.get("shop")
        shop.delete(["000"])
        shop.upsert([row("001", 0, 1)])
    with Catalog(tmp_path) as catalog:
        assert nearest(catalog.get("shop")) == [*ALL[2:], "001"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("spoil", [flip, cut, Path.unlink])
def test_a_damaged_file_is_passed_over_and_made_anew(
    tmp_path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path)
    spoil(sorted((tmp_path / "shop" / "segments").iterdir())[1])
    with Catalog(tmp_path) as catalog:
        assert nearest(settled(catalog.get("shop"))) == ALL
    assert "damaged or missing" in caplog.text
    caplog.clear()
    with Catalog(tmp_path) as catalog:
        assert nearest(catalog.get("shop")) == ALL
    assert caplog.text == ""


def test_a_flipped_bit_in_the_list_of_deleted_rows_is_no_more_than_a_slow_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path)
    with Catalog(tmp_path) as catalog:
        catalog.get("shop").delete(["001", "005"])
    store = tmp_path / "shop" / "store.db"
    first, flipped = (bytes((2, key, 2, 0)) for key in (2, 2 ^ 64))  # of one NULL and its row's number
    assert store.read_bytes().count(first) == 1
    store.write_bytes(store.read_bytes().replace(first, flipped))
    with Catalog(tmp_path) as catalog:
        assert nearest(catalog.get("shop")) == [one for one in ALL if one not in ("001", "005")]
    assert "all are read from it" in caplog.text


def test_files_that_nobody_points_to_are_removed(tmp_path: Path) -> None:
    filled(tmp_path)
    folder = tmp_path / "shop" / "segments"
    before = sorted(os.listdir(folder))
    (folder / "draft").write_bytes(b"half")
    (folder / "1-2-2").write_bytes(b"old")
    with Catalog(tmp_path):
        assert sorted(os.listdir(folder)) == before


def test_deleted_rows_pile_up_neither_in_memory_nor_on_disk(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        shop = catalog.create("shop", SPACE)
        for i in range(100):
            shop.upsert([row("same", 1, i), row(f"other-{i % 3}", 1, i)])
        settled(shop)
        assert shop.count == 4
        assert sum(part.count for part in shop._view.parts) <= 3 * 8
        shop.delete(["same", *(f"other-{i}" for i in range(3))])
        settled(shop)
        assert nearest(shop) == []
        assert len(os.listdir(tmp_path / "shop" / "segments")) <= 1
        with shop._current.store.reading() as reader:
            assert len(reader.gone()) <= 8


def test_a_segment_that_cannot_be_written_costs_nothing_but_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookalike_server.caretaker, "_RETRY_SECONDS", 0.05)
    with Catalog(tmp_path) as catalog:
        shop = catalog.create("shop", SPACE)
        folder = tmp_path / "shop" / "segments"
        folder.write_text("in the way of the folder")
        for i in range(20):
            shop.upsert([row(f"{i:03}", 1, i / 10)])
        assert nearest(shop) == [f"{i:03}" for i in range(20)]
        folder.unlink()
        settled(shop)
        assert len(os.listdir(folder)) == 2
    assert "could not be written" in caplog.text


@pytest.mark.parametrize("dimension", [4, 5])
def test_the_checksum_notices_any_flipped_bit_and_rows_out_of_place(dimension: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((3, dimension)).astype(np.float32)
    keys = np.array([1, 2, 5])
    right = checksum(keys, vectors)
    for byte in range(vectors.nbytes):
        for bit in range(8):
            flipped = bytearray(vectors.tobytes())
            flipped[byte] ^= 1 << bit
            assert checksum(keys, np.frombuffer(flipped, np.float32).reshape(vectors.shape)) != right
    assert checksum(keys, vectors[[1, 0, 2]]) != right
    assert checksum(np.array([1, 2, 4]), vectors) != right
