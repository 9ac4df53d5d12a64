"""Verifying, copying and restoring: what is damaged is told, what is copied comes back."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import lookalike_server.view
import numpy as np
import pytest
from lookalike import Client
from lookalike.cli.app import run
from lookalike.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument
from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.errors import StoreUnusable
from lookalike_server.segments import next_run
from made_rows import SPACE, pointing, row
from over_wire import Wire, run_over_wire


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookalike_server.view, "PART_ROWS", 8)


def fill(shop: Collection, count: int = 30) -> Collection:
    shop.upsert([row(f"{i:02}", 1, i, n=i) for i in range(count)])
    shop.delete(["03"])
    shop.set_document("table", "[1]")
    return tidied(shop)


def tidied(shop: Collection) -> Collection:
    """Waits until all segments are made."""
    while next_run(shop._view):
        time.sleep(0.01)
    return shop


def changed(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_a_whole_collection_has_no_faults(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        found = fill(catalog.create("shop", SPACE)).verify()
    assert found.problems == ()
    assert (found.items, found.segments > 0, found.sequence) == (29, True, 31)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE item SET attributes = '{}' WHERE id = '05'", "row 6: the item '05'"),
        ("UPDATE vector SET data = x'00' WHERE k = 7", "row 7: the descriptor"),
        ("DELETE FROM vector WHERE k = 30", "row 30: there is no vector"),
        ("DELETE FROM item WHERE k = 30", "row 30: there is no item"),
        ("UPDATE document SET value = '2'", "document 'table'"),
    ],
)
def test_each_row_that_was_changed_behind_our_back_is_told(
    tmp_path: Path, statement: str, words: str
) -> None:
    with Catalog(tmp_path) as catalog:
        shop = fill(catalog.create("shop", SPACE))
        changed(tmp_path / "shop" / "store.db", statement)
        assert any(words in problem for problem in shop.verify().problems)


def test_a_damaged_segment_and_a_view_that_differs_are_told(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        shop = fill(catalog.create("shop", SPACE))
        file = sorted((tmp_path / "shop" / "segments").iterdir())[0]
        with file.open("r+b") as opened:
            opened.seek(-1, os.SEEK_END)
            opened.write(b"\x7f")
        problems = shop.verify().problems
        assert any("segment" in problem for problem in problems)
        assert any("other descriptors" in problem for problem in problems)
    with Catalog(tmp_path) as catalog:  # made anew from the store
        assert tidied(catalog.get("shop")).verify().problems == ()


def test_a_backup_taken_while_others_write_is_one_state_and_comes_back_whole(tmp_path: Path) -> None:
    stop = threading.Event()

    def write(shop: Collection) -> None:
        for i in range(10_000):
            if stop.is_set():
                return
            shop.upsert([row("left", 1, i, turn=i), row("right", 1, i, turn=i)])

    with Catalog(tmp_path / "data") as catalog:
        shop = fill(catalog.create("shop", SPACE))
        writer = threading.Thread(target=write, args=(shop,))
        writer.start()
        sequences = [shop.back_up(tmp_path / f"{i}.db") for i in range(5)]
        stop.set()
        writer.join()
        assert sequences == sorted(sequences)
        for i, sequence in enumerate(sequences):
            with catalog.scratch() as folder:
                shutil.copy(tmp_path / f"{i}.db", folder / "store.db")
                again = catalog.restore(folder, f"again-{i}")
            assert again.sequence == sequence
            assert again.verify().problems == ()
            assert again.get_document("table") == "[1]"
            turns = {json.loads(item.attributes_json).get("turn") for item in again.list(0, -1, "turn >= 0")}
            assert len(turns) <= 1
            assert again.search(pointing(1)[None], 1).hits[0][0].id == "00"
            again.upsert([row("new")])


def test_the_store_alone_is_enough_to_start_from(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        fill(catalog.create("shop", SPACE))
    shutil.rmtree(tmp_path / "shop" / "segments")
    with Catalog(tmp_path) as catalog:
        assert catalog.get("shop").count == 29
        assert tidied(catalog.get("shop")).verify().problems == ()


def test_over_the_wire_a_collection_is_verified_copied_and_restored(tmp_path: Path) -> None:
    file = tmp_path / "shop.backup"

    def talk(target: str) -> None:
        with Client(target) as client:
            shop = client.collection("shop")
            assert shop.verify().ok
            assert shop.backup(file) == 31
            with pytest.raises(FileExistsError):
                shop.backup(file)
            with pytest.raises(AlreadyExists):
                client.restore(file)
            with pytest.raises(InvalidArgument, match="cannot name"):
                client.restore(file, "no name")
            again = client.restore(file, "again")
            assert again.info().item_count == 29
            assert [item.id for item in again.items("n < 5")] == ["00", "01", "02", "04"]
            assert np.array_equal(
                again.get("07", descriptors=True).descriptor, shop.get("07", descriptors=True).descriptor
            )

    async def test(wire: Wire) -> None:
        fill(wire.catalog.get("shop"))
        await wire.in_thread(talk, wire.target)

    run_over_wire(tmp_path / "data", test)
    assert not [path.name for path in (tmp_path / "data").iterdir() if path.name.startswith(".new")]


def test_the_command_line_verifies_copies_and_restores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "shop.backup"

    def shell(*arguments: object) -> int:
        return run(["collections", *map(str, arguments)])

    def talk(target: str) -> None:
        place = ("--server", target)
        assert shell("backup", "shop", file, *place) == 0
        assert shell("backup", "shop", file, *place) == 1
        assert shell("restore", file, "again", *place) == 0
        assert shell("restore", tmp_path / "nothing", *place) == 2
        assert shell("verify", "again", *place) == 0
        changed(tmp_path / "data" / "again" / "store.db", "UPDATE vector SET crc = 0 WHERE k = 5")
        assert shell("verify", "again", "--json", *place) == 1

    async def test(wire: Wire) -> None:
        fill(wire.catalog.get("shop"))
        await wire.in_thread(talk, wire.target)

    run_over_wire(tmp_path / "data", test)
    out, err = capsys.readouterr()
    assert "row 5" in json.loads(out)["problems"][0]
    assert "again is there again, with 29 items" in err
    assert "is there already" in err


def test_a_damaged_collection_can_be_deleted_and_its_backup_put_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, file = tmp_path / "data", tmp_path / "hats.backup"
    with Catalog(data) as catalog:
        catalog.create("hats", SPACE)
    shutil.copy(data / "hats" / "store.db", file)
    (data / "hats" / "store.db").write_bytes(b"no database")

    def talk(target: str) -> None:
        place = ("--server", target)
        assert run(["collections", "restore", str(file), "hats", *place]) == 2
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda question: "n")
        assert run(["collections", "delete", "hats", *place]) == 130
        assert "is damaged: not a database" in capsys.readouterr().err
        assert run(["collections", "delete", "hats", "--yes", *place]) == 0
        assert run(["collections", "restore", str(file), "hats", *place]) == 0

    async def test(wire: Wire) -> None:
        await wire.in_thread(talk, wire.target)

    run_over_wire(data, test)


def spoil(file: Path, how: str) -> None:
    size = file.stat().st_size
    if how == "cut":
        os.truncate(file, size // 2)
    elif how == "empty":
        os.truncate(file, 0)
    elif how == "other":
        file.write_bytes(b"not a database at all" * 1000)
    elif how == "flipped":
        data = bytearray(file.read_bytes())
        place = data.index(np.float32(pointing(1, 7)[1]).tobytes())  # within a stored descriptor
        data[place] ^= 1
        file.write_bytes(data)
    else:
        changed(file, "PRAGMA user_version=99")


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("cut", DataLoss),
        ("flipped", DataLoss),
        ("other", DataLoss),
        ("empty", InvalidArgument),
        ("newer", FailedPrecondition),
    ],
)
def test_a_backup_that_is_not_what_was_written_restores_nothing(
    tmp_path: Path, how: str, error: type[Exception]
) -> None:
    file = tmp_path / "shop.backup"

    def talk(target: str) -> None:
        with Client(target) as client:
            client.collection("shop").backup(file)
            spoil(file, how)
            with pytest.raises(error) as caught:
                client.restore(file, "again")
            assert str(tmp_path / "data") not in str(caught.value)
            assert "restore it" not in str(caught.value)
            assert [info.name for info in client.collections()] == ["shop"]
            assert client.collection("shop").verify().ok

    async def test(wire: Wire) -> None:
        fill(wire.catalog.get("shop"))
        await wire.in_thread(talk, wire.target)

    run_over_wire(tmp_path / "data", test)


def test_a_folder_that_cannot_be_written_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with Catalog(tmp_path) as catalog:
        monkeypatch.setattr("tempfile.mkdtemp", refuse)
        with pytest.raises(StoreUnusable, match="Check its rights"), catalog.scratch():
            pass
