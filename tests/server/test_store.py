"""The store's file: what is kept beside the items, and files of other formats."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from lookalike_server.catalog import Catalog
from lookalike_server.errors import StoreDamaged, StoreTooNew
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
