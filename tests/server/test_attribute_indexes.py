"""Indexes on attributes: filters use them and mean the same with them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from lookalike import Client
from lookalike.aio import AsyncClient
from lookalike.cli.app import run
from lookalike.errors import InvalidArgument
from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.errors import ArgumentInvalid, FilterInvalid, StoreDamaged
from lookalike_server.filters import parse_filter
from lookalike_server.rows import NewRow
from made_rows import SPACE, pointing, row
from over_wire import Wire, run_over_wire

PATHS = ["price", "brand", "size.width", "`odd key`", "`it's`", "sold"]
VALUES: list[Any] = [0, 1, -1, 2.5, 2**62, True, False, None]
VALUES += ["", "a", "ab", "b", "\ud7ff", "\U0010ffff", [1], {"width": 3}]
FILTERS = [
    "price < 2",
    "price >= 0 and price <= 2.5",
    "price = 1",
    "price in (1, 'a', true, null)",
    "price not in (1, 'a')",
    "price != null",
    "price = null",
    "not price > 1",
    "brand = 'a'",
    "brand > 'a'",
    "brand starts_with 'a'",
    "brand starts_with ''",
    "brand starts_with '\ud7ff'",
    "brand starts_with '\U0010ffff'",
    "not brand starts_with 'a'",
    "sold = true",
    "sold != false",
    "exists(sold)",
    "not exists(sold)",
    "size.width = 3 or brand = 'b'",
    "brand = 'b' and not (price = 1 or sold = true)",
    "`odd key` = 1 and exists(`it's`)",
]


def fill(shop: Collection) -> Collection:
    keys = ["price", "brand", "size", "odd key", "it's", "sold"]
    for i in range(64):
        attributes = {key: VALUES[i * (2 * n + 1) % 16] for n, key in enumerate(keys)}
        shop.upsert([NewRow(str(i), pointing(1, i), json.dumps(attributes))])
    shop.upsert([row("bare", 1.0)])
    return shop


def fitting(shop: Collection, where: str) -> list[str]:
    return [item.id for item in shop.list(0, -1, where)]


def plan(path: Path, where: str) -> str:
    condition = parse_filter(where)
    with closing(sqlite3.connect(path / "shop" / "store.db")) as connection:
        steps = connection.execute(
            f"EXPLAIN QUERY PLAN SELECT k FROM item WHERE {condition.sql}", condition.parameters
        )
        return "\n".join(step[3] for step in steps)


def test_a_filter_finds_the_same_with_and_without_indexes(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        shop = fill(catalog.create("shop", SPACE))
        scanned = {where: fitting(shop, where) for where in FILTERS}
        assert all(scanned.values())
        shop.index_attributes(PATHS)
        assert {where: fitting(shop, where) for where in FILTERS} == scanned
        shop.delete(["1", "17"])
        shop.upsert([row("2", price=0), row("bare", 1.0)])
        indexed = {where: fitting(shop, where) for where in FILTERS}
        assert shop.verify().problems == ()
        shop.index_attributes([])
        assert {where: fitting(shop, where) for where in FILTERS} == indexed


@pytest.mark.parametrize(
    "where",
    [
        "price < 2",
        "price >= 0 and price < 3",
        "price = 2",
        "brand = 'a'",
        "brand in ('a', 'b')",
        "brand starts_with 'a'",
        "sold = true",
        "price = null",
        "size.width = 3 or brand = 'b'",
        "`it's` = 1",
        "colour = 'red' and brand = 'a'",
    ],
)
def test_such_filters_go_through_the_index(tmp_path: Path, where: str) -> None:
    with Catalog(tmp_path) as catalog:
        shop = catalog.create("shop", SPACE)
        assert "SCAN item" in plan(tmp_path, where)
        shop.index_attributes(PATHS)
        told = plan(tmp_path, where)
    assert "SCAN item" not in told
    assert "USING INDEX attribute:" in told


def test_pages_come_in_their_order_whatever_is_indexed(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        shop = catalog.create("shop", SPACE, ["price", "brand"])
        shop.upsert([row(f"{i:02}", 1, i, price=40 - i, brand="ab"[i % 2]) for i in range(40)])
        for where in ("price < 30", "brand = 'a'", "brand = 'a' and price > 10"):
            whole, paged, after = shop.list(0, -1, where), [], 0
            while page := shop.list(after, 3, where):
                paged += page
                after = page[-1].k
            assert [item.id for item in paged] == sorted(item.id for item in whole)


def test_indexes_are_kept_over_a_restart_in_a_backup_and_as_they_were_written(tmp_path: Path) -> None:
    with Catalog(tmp_path / "data") as catalog:
        shop = fill(catalog.create("shop", SPACE, ["`price`", "price", "`not`.x", "`odd key`"]))
        assert shop.index_status().attributes == ["price", "`not`.x", "`odd key`"]
        shop.index_attributes(["price", "brand"])
        with catalog.scratch() as folder:
            shop.back_up(folder / "store.db")
            catalog.restore(folder, "copy")
    with Catalog(tmp_path / "data") as catalog:
        for name in ("shop", "copy"):
            assert catalog.get(name).index_status().attributes == ["price", "brand"]
            assert catalog.get(name).verify().problems == ()


@pytest.mark.parametrize("path", ["", "price <", "a..b", '`"`', "p" * 1001])
def test_what_is_no_attribute_gets_no_index_and_nothing_changes(tmp_path: Path, path: str) -> None:
    with Catalog(tmp_path) as catalog:
        shop = catalog.create("shop", SPACE, ["price"])
        with pytest.raises((FilterInvalid, ArgumentInvalid)):
            shop.index_attributes(["brand", path])
        assert shop.index_status().attributes == ["price"]
        with pytest.raises((FilterInvalid, ArgumentInvalid)):
            catalog.create("hats", SPACE, [path])
        assert [c.name for c in catalog.list()] == ["shop"]


def test_there_is_a_most_of_indexes(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog, pytest.raises(ArgumentInvalid, match="at most 32"):
        catalog.create("shop", SPACE, [f"a{i}" for i in range(33)])


def test_attributes_that_are_no_json_any_more_are_told_as_damage(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        fill(catalog.create("shop", SPACE))
    with closing(sqlite3.connect(tmp_path / "shop" / "store.db")) as connection:
        connection.execute("UPDATE item SET attributes = '{' WHERE id = '7'")
        connection.commit()
    with Catalog(tmp_path) as catalog:
        shop = catalog.get("shop")
        with pytest.raises(StoreDamaged, match=r"store\.db"):
            shop.index_attributes(["price"])
        with pytest.raises(StoreDamaged, match=r"store\.db"):
            fitting(shop, "a = 1")


def test_over_the_wire_indexes_are_declared_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def talk_aside(target: str) -> None:
        async with AsyncClient(target) as client:
            hats = await client.create_collection("hats", attribute_indexes=["size.width"])
            assert (await hats.info()).attribute_indexes == ("size.width",)
            assert (await hats.set_attribute_indexes("price")).attribute_indexes == ("price",)

    def talk(target: str) -> None:
        with Client(target) as client:
            boots = client.create_collection("boots", attribute_indexes=["brand"])
            assert boots.info().attribute_indexes == ("brand",)
            assert boots.set_attribute_indexes([]).attribute_indexes == ()
            with pytest.raises(InvalidArgument, match="attribute to index cannot be read"):
                boots.set_attribute_indexes(["price <"])
        asyncio.run(talk_aside(target))
        command = ["collections", "attributes", "boots", "--server", target]
        assert run([*command, "price", "brand"]) == 0
        assert run(command) == 0
        assert run([*command, "--none", "price"]) == 2
        assert run([*command, "--none"]) == 0

    async def test(wire: Wire) -> None:
        await wire.in_thread(talk, wire.target)

    run_over_wire(tmp_path, test)
    told = capsys.readouterr()
    assert told.out == "price\nbrand\n" * 2
    assert "no attribute of boots has an index" in told.err
