"""The store's file: what is kept beside the items, and files of other formats."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from lookalike_server.catalog import Catalog
from lookalike_server.errors import StoreDamaged, StoreTooNew
from lookalike_server.filters import EVERYTHING
from lookalike_server.store import Store
from made_rows import SPACE, row


def changed(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_a_document_is_kept_replaced_and_removed_and_no_item_notices(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        shop = catalog.create("shop", SPACE)
        sequence = shop.upsert([row("a")]).sequence
        shop.set_document("table", '{"a": 1}')
        shop.set_document("table", '{"a": 2}')
        shop.set_document("other", "[]")
        shop.set_document("other", "")
        assert shop.sequence == sequence
    with Catalog(tmp_path) as catalog:
        shop = catalog.get("shop")
        assert shop.get_document("table") == '{"a": 2}'
        assert shop.get_document("other") is None
        with pytest.raises(json.JSONDecodeError):
            shop.set_document("table", "{")


def test_a_document_that_was_changed_behind_our_back_is_not_believed(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        catalog.create("shop", SPACE).set_document("table", "1")
    changed(tmp_path / "shop" / "store.db", "UPDATE document SET value = '2'")
    with Catalog(tmp_path) as catalog, pytest.raises(StoreDamaged, match="document 'table'"):
        catalog.get("shop").get_document("table")


def test_a_file_of_the_first_format_is_upgraded_when_it_is_opened(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        catalog.create("shop", SPACE).upsert([row("a")])
    changed(tmp_path / "shop" / "store.db", "DROP TABLE document", "PRAGMA user_version=1")
    for _ in range(2):
        with Catalog(tmp_path) as catalog:
            shop = catalog.get("shop")
            assert list(shop.get(["a"])) == ["a"]
            shop.set_document("table", "1")


def test_a_file_of_a_newer_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        catalog.create("shop", SPACE)
    file = tmp_path / "shop" / "store.db"
    changed(file, "PRAGMA user_version=99")
    before = file.read_bytes()
    with Catalog(tmp_path) as catalog, pytest.raises(StoreTooNew, match="format 99"):
        catalog.get("shop")
    assert file.read_bytes() == before


def test_changes_of_one_transaction_see_each_other(tmp_path: Path) -> None:
    Store.create(tmp_path / "store.db", "shop", SPACE)
    store = Store(tmp_path / "store.db")
    with store.writing() as writing:
        writing.upsert([row("old")])
        writing.commit()
    with store.writing() as writing:
        writing.look_up(["old", "new"])
        assert writing.upsert([row("old"), row("new")]).replaced == 1
        assert writing.upsert([row("new"), row("other")]).replaced == 1
        assert writing.delete(["old", "old", "nobody"]).deleted == 1
        assert writing.delete(["old"]).deleted == 0
        writing.index_attributes(["n"])  # needs the rows in their tables
        assert writing.upsert([row("new", n=3)]).replaced == 1
        assert (writing.removed, sorted(writing.added)) == ([1], [5, 7])
        writing.commit()
    with store.reading() as reader:
        assert [(one.k, one.id, one.attributes_json) for one in reader.page(0, -1, EVERYTHING)] == [
            (5, "other", "{}"),
            (7, "new", '{"n":3}'),
        ]
        assert not list(reader.damage())
    store.close()


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 200])
def test_any_number_of_rows_is_written_in_one_call(tmp_path: Path, count: int) -> None:
    with Catalog(tmp_path) as catalog:
        shop = catalog.create("shop", SPACE)
        shop.upsert([row(str(i), 1, i, n=i) for i in range(count)])
        assert shop.upsert([row(str(i), 1, i, n=i) for i in range(count)]).replaced == count
        assert not shop.verify().problems
        assert shop.count == count
