"""The data directory: names, the lock, what a kill leaves behind, files that are not as written."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lookalike_extractor.recipe import Space
from lookalike_server.catalog import Catalog
from lookalike_server.errors import (
    ArgumentInvalid,
    CollectionExists,
    CollectionUnknown,
    DataDirectoryBusy,
    DiskFull,
    StoreDamaged,
    StoreTooNew,
    StoreUnusable,
)
from lookalike_server.rows import NewRow
from made_rows import SPACE, pointing, row


def test_collections_are_there_after_opening_anew_by_name(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        for name in ("shoes", "hats", "lock"):
            catalog.create(name, SPACE).upsert([row(name)])
    with Catalog(tmp_path) as catalog:
        assert [c.name for c in catalog.list()] == ["hats", "lock", "shoes"]
        assert (catalog.get("hats").space, catalog.get("hats").count) == (SPACE, 1)


@pytest.mark.parametrize("name", ["", "Shop", "-shop", ".shop", "a/b", "..", "a" * 64, "schön", "shop\n"])
def test_a_bad_name_is_refused_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with Catalog(tmp_path) as catalog, pytest.raises(ArgumentInvalid):
        catalog.create(name, SPACE)
    assert sorted(os.listdir(tmp_path)) == [".lock", ".reserve"]


def test_a_name_is_taken_until_its_collection_is_deleted(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        catalog.create("shop", SPACE).upsert([row("a")])
        with pytest.raises(CollectionExists):
            catalog.create("shop", SPACE)
        catalog.delete("shop")
        assert catalog.create("shop", SPACE).count == 0


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        catalog.create("shoes", SPACE)
        for call in (catalog.get, catalog.delete):
            with pytest.raises(CollectionUnknown, match="Did you mean 'shoes'"):
                call("shoe")


def test_a_directory_in_use_names_the_process_that_has_it(tmp_path: Path) -> None:
    with Catalog(tmp_path), pytest.raises(DataDirectoryBusy, match=f"process {os.getpid()}"):
        Catalog(tmp_path)
    Catalog(tmp_path).close()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable, match="cannot be used"):
        Catalog(tmp_path / "file" / "data")


def test_what_a_kill_left_half_made_or_half_deleted_is_removed(tmp_path: Path) -> None:
    for leftover in (".new-shop", ".gone-shop"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "store.db").write_text("half")
    with Catalog(tmp_path) as catalog:
        assert catalog.list() == []
    assert sorted(os.listdir(tmp_path)) == [".lock", ".reserve"]


def spoil_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"not a database")


def flip_a_bit_of_a_vector(path: Path) -> None:
    data = bytearray(path.read_bytes())
    place = data.index(pointing(3, 4).tobytes())
    data[place] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE x(y)")
    connection.close()


def flip_a_bit_of_the_schema(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"dimension INTEGER", b"dimensioo INTEGER"))


SPOILS = [spoil_header, flip_a_bit_of_a_vector, flip_a_bit_of_the_schema, cut, foreign, Path.unlink]


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_damaged_collection_is_named_and_does_not_keep_others_out(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    with Catalog(tmp_path) as catalog:
        catalog.create("good", SPACE).upsert([row("a")])
        catalog.create("spoilt", SPACE).upsert([row("a", 3, 4)])
    spoil(tmp_path / "spoilt" / "store.db")
    with Catalog(tmp_path) as catalog:
        with pytest.raises(StoreDamaged, match=r"spoilt/store\.db"):
            catalog.get("spoilt")
        with pytest.raises(CollectionExists):
            catalog.create("spoilt", SPACE)
        assert [c.name for c in catalog.list()] == ["good"]
        catalog.delete("spoilt")
        assert catalog.create("spoilt", SPACE).count == 0


def test_a_flipped_bit_in_attributes_is_noticed_when_they_are_read(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        catalog.create("shop", SPACE).upsert([row("a", name="original")])
    path = tmp_path / "shop" / "store.db"
    path.write_bytes(path.read_bytes().replace(b"original", b"Original"))
    with Catalog(tmp_path) as catalog, pytest.raises(StoreDamaged):
        catalog.get("shop").get(["a"])


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE vector SET data = 5",
        "UPDATE vector SET crc = 'x'",
        "UPDATE item SET digest = 5",
        "UPDATE item SET attributes = CAST(x'ff' AS TEXT)",
        "UPDATE collection SET sequence = 'x'",
        "UPDATE collection SET dimension = 'x'",
    ],
)
def test_a_value_of_another_type_is_told_as_damage_and_harms_no_other_collection(
    tmp_path: Path, change: str
) -> None:
    with Catalog(tmp_path) as catalog:
        for name in ("shop", "other"):
            catalog.create(name, SPACE).upsert([row("a")])
    with sqlite3.connect(tmp_path / "shop" / "store.db") as connection:
        connection.execute(change)
    connection.close()
    with Catalog(tmp_path) as catalog:
        with pytest.raises(StoreDamaged, match="shop"):
            catalog.get("shop").get(["a"], descriptors=True)
        assert catalog.get("other").verify().problems == ()


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        catalog.create("shop", SPACE)
    with sqlite3.connect(tmp_path / "shop" / "store.db") as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    with Catalog(tmp_path) as catalog, pytest.raises(StoreTooNew, match="format 999"):
        catalog.get("shop")


def test_on_a_full_disk_writes_are_refused_reads_go_on_and_it_recovers(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        shop = catalog.create("shop", SPACE)
        shop.upsert([row("a", 1, 0)])
        shop._current.store._writer.execute("PRAGMA max_page_count = 1")
        many = [row(f"b{i}", 0, 1, filler="x" * 1000) for i in range(100)]
        with pytest.raises(DiskFull, match="disk is full"):
            shop.upsert(many)
        assert [hit.id for hit in shop.search(pointing(1, 0)[None], 5).hits[0]] == ["a"]
        assert (shop.count, list(shop.get(["a", "b0"]))) == (1, ["a"])
        shop._current.store._writer.execute("PRAGMA max_page_count = 1000000")
        shop.upsert(many)
        assert shop.count == 101


def test_one_failing_change_does_not_fail_those_that_shared_its_transaction(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        shop = catalog.create("shop", SPACE)

        def fail(_: object) -> None:
            raise RuntimeError("a fault of ours")

        with shop._current._publishing:  # holds the first commit back, so that the others share the next
            first = shop.submit_upsert([row("first")])
            futures = [shop.submit_upsert([row("a")]), shop._submit(fail), shop.submit_upsert([row("b")])]  # type: ignore[arg-type]
        assert first.result().inserted == futures[0].result().inserted == futures[2].result().inserted == 1
        with pytest.raises(RuntimeError):
            futures[1].result()
        assert sorted(shop.get(["first", "a", "b"])) == ["a", "b", "first"]


def test_a_cancelled_write_that_has_not_begun_leaves_nothing(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        shop = catalog.create("shop", SPACE)
        with shop._current._publishing:
            shop.submit_upsert([row("first")])
            while not shop._writer._line.empty():
                pass
            left = shop.submit_upsert([row("left")])
            assert left.cancel()
        shop.upsert([row("last")])
        assert sorted(shop.get(["first", "left", "last"])) == ["first", "last"]


def test_a_file_takes_little_more_than_its_vectors(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).standard_normal((2000, 512)).astype(np.float32)
    with Catalog(tmp_path) as catalog:
        shop = catalog.create("shop", Space(id="wide", dimension=512, recipe="by_hand"))
        shop.upsert([NewRow(f"photos/IMG_{i:05}.jpg", v) for i, v in enumerate(wide)])
    assert (tmp_path / "shop" / "store.db").stat().st_size < 1.25 * wide.nbytes
