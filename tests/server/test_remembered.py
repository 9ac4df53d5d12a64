"""Rows of hits are remembered up to a size; what is asked for often stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lookalike_extractor.recipe import Space
from lookalike_server.catalog import Catalog
from lookalike_server.reader import Reader
from lookalike_server.remembered import Remembered
from lookalike_server.rows import NewRow, Row


def test_what_is_asked_for_stays_and_the_rest_is_forgotten() -> None:
    rows = Remembered(most_bytes=20 * 500)
    rows.put(Row(1, "often", "{}", b""))
    for key in range(2, 200):
        rows.put(Row(key, f"item-{key}", "{}", b""))
        assert rows.get([1, 10**6]).keys() == {1}
    assert rows.get([2, 199]).keys() == {199}
    assert sum(len(rows.get([key])) for key in range(1, 200)) < 60


def test_a_search_finds_the_newest_version_of_what_it_remembers_and_nothing_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    by_key = Reader.by_key
    monkeypatch.setattr(Reader, "by_key", lambda self, keys: read.extend(keys) or by_key(self, keys))
    query = np.eye(4, dtype=np.float32)[:1]
    with Catalog(tmp_path) as catalog:
        shop = catalog.create("shop", Space(id="s", dimension=4, recipe="r"))
        shop.upsert([NewRow("a", query[0], '{"n": 1}'), NewRow("b", query[0], '{"n": 1}')])
        for _ in range(3):
            assert [hit.attributes_json for hit in shop.search(query, 5).hits[0]] == ['{"n":1}', '{"n":1}']
        assert read == [1, 2]
        shop.upsert([NewRow("a", query[0], '{"n": 2}')])
        assert [hit.attributes_json for hit in shop.search(query, 5).hits[0]] == ['{"n":2}', '{"n":1}']
        shop.delete(["b"])
        assert [hit.id for hit in shop.search(query, 5).hits[0]] == ["a"]
