"""Aliases: names that stand for collections, and are switched from one to another at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from lookalike import Client
from lookalike.aio import AsyncClient
from lookalike.cli.app import run
from lookalike.errors import AlreadyExists, FailedPrecondition, NotFound
from lookalike.v1 import collections_pb2 as pb
from lookalike.v1 import items_pb2, search_pb2
from lookalike_server.catalog import Catalog
from lookalike_server.errors import (
    AliasUnknown,
    ArgumentInvalid,
    CollectionAliased,
    CollectionExists,
    CollectionUnknown,
    StoreDamaged,
)
from made_rows import SPACE, row
from over_wire import Wire, described, run_over_wire


def shelves(root: Path) -> Catalog:
    """Two collections, each with one item of its name, and an alias "shop" of the first."""
    catalog = Catalog(root)
    for name in ("shop-1", "shop-2"):
        catalog.create(name, SPACE).upsert([row(name)])
    catalog.set_alias("shop", "shop-1")
    return catalog


def test_an_alias_stands_for_its_collection_and_is_kept_over_a_restart(tmp_path: Path) -> None:
    with shelves(tmp_path) as catalog:
        assert catalog.get("shop") is catalog.get("shop-1")
        assert catalog.set_alias("shop", "shop-2").name == "shop-2"
        catalog.set_alias("store", "shop")  # of what the other stands for now
    with Catalog(tmp_path) as catalog:
        catalog.set_alias("shop", "shop-1")
        assert {name: catalog.get(name).name for name in ("shop", "store")} == {
            "shop": "shop-1",
            "store": "shop-2",
        }
        assert [c.name for c in catalog.list()] == ["shop-1", "shop-2"]
        catalog.delete_alias("shop")
        with pytest.raises(CollectionUnknown, match="Did you mean"):
            catalog.get("shop")
        assert catalog.get("shop-1").count == 1


def test_a_name_means_one_thing_only(tmp_path: Path) -> None:
    with shelves(tmp_path) as catalog:
        with pytest.raises(CollectionExists, match="an alias"):
            catalog.create("shop", SPACE)
        with pytest.raises(CollectionExists):
            catalog.set_alias("shop-2", "shop-1")
        with pytest.raises(ArgumentInvalid):
            catalog.set_alias("Shop", "shop-1")
        with pytest.raises(CollectionUnknown):
            catalog.set_alias("shop", "shop-3")
        with pytest.raises(AliasUnknown, match="Did you mean 'shop'"):
            catalog.delete_alias("shopp")
        assert catalog.get("shop").name == "shop-1"


def test_what_is_in_use_under_an_alias_is_not_deleted(tmp_path: Path) -> None:
    with shelves(tmp_path) as catalog:
        for name in ("shop", "shop-1"):
            with pytest.raises(CollectionAliased):
                catalog.delete(name)
        assert catalog.get("shop").count == 1
        catalog.set_alias("shop", "shop-2")
        catalog.delete("shop-1")
        assert catalog.get("shop").name == "shop-2"


def test_who_reads_while_an_alias_is_switched_finds_one_or_the_other(tmp_path: Path) -> None:
    with shelves(tmp_path) as catalog:
        stop, seen = threading.Event(), set[str]()

        def read() -> None:
            while not stop.is_set():
                seen.add(catalog.get("shop").search(row("q").descriptor[None], 1).hits[0][0].id)

        reader = threading.Thread(target=read)
        reader.start()
        for i in range(60):
            catalog.set_alias("shop", f"shop-{i % 2 + 1}")
        stop.set()
        reader.join()
        assert seen == {"shop-1", "shop-2"}


@pytest.mark.parametrize(
    "spoil", [lambda data: b"", lambda data: data[:-5], lambda data: data.replace(b"shop-1", b"shop-2")]
)
def test_a_damaged_file_of_aliases_is_told_and_made_anew_by_the_next(
    tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    shelves(tmp_path).close()
    path = tmp_path / ".aliases"
    path.write_bytes(spoil(path.read_bytes()))
    with Catalog(tmp_path) as catalog:
        assert catalog.get("shop-1").count == 1
        for call in (catalog.get, catalog.delete_alias):
            with pytest.raises(StoreDamaged, match="Set them again"):
                call("shop")
        catalog.set_alias("shop", "shop-1")
        assert catalog.get("shop").name == "shop-1"
        with pytest.raises(CollectionUnknown):
            catalog.get("shoe")


def test_an_alias_is_accepted_wherever_a_collection_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def talk_aside(target: str) -> None:
        async with AsyncClient(target) as client:
            await client.set_alias("counter", "shop")
            assert (await client.collections())[0].aliases == ("counter", "window")
            await client.delete_alias("counter")

    def talk(target: str) -> None:
        with Client(target) as client:
            window = client.set_alias("window", "shop")
            assert (window.info().name, window.info().aliases) == ("shop", ("window",))
            assert [item.id for item in window.items()] == ["a", "b"]
            assert window.delete("b") == 1
            assert window.verify().ok
            assert window.backup(tmp_path / "backup") == window.info().sequence
            with pytest.raises(FailedPrecondition, match="alias"):
                client.delete_collection("window")
            with pytest.raises(AlreadyExists):
                client.create_collection("window")
            with pytest.raises(NotFound):
                client.delete_alias("door")
        asyncio.run(talk_aside(target))
        assert run(["collections", "list", "--server", target]) == 0
        assert run(["collections", "alias", "window", "--server", target]) == 2
        assert run(["collections", "alias", "window", "--delete", "--server", target]) == 0
        assert run(["collections", "alias", "door", "shop", "--server", target]) == 0

    async def test(wire: Wire) -> None:
        await wire.collections.SetAlias(pb.SetAliasRequest(alias="window", collection="shop"))
        await wire.upsert(described("a", 1, 0, 0, 0), described("b", 0, 1, 0, 0), collection="window")
        query = search_pb2.Query(item_id="a")
        found = await wire.search.Search(search_pb2.SearchRequest(collection="window", queries=[query]))
        assert [hit.id for hit in found.results[0].hits] == ["b"]
        await wire.in_thread(talk, wire.target)

    run_over_wire(tmp_path / "data", test)
    told = capsys.readouterr()
    assert "window" in told.out
    assert "door stands for shop" in told.err


def test_a_page_belongs_to_a_collection_and_not_to_its_alias(tmp_path: Path) -> None:
    async def test(wire: Wire) -> None:
        for name in ("shop", "other"):
            shelf = wire.catalog.get("shop") if name == "shop" else wire.catalog.create(name, SPACE)
            shelf.upsert([row(f"{name}-{i}", 1, i) for i in range(4)])
        await wire.collections.SetAlias(pb.SetAliasRequest(alias="window", collection="shop"))
        items = items_pb2.ListItemsRequest(collection="window", page_size=2)
        items.page_token = (await wire.items.ListItems(items)).next_page_token
        hits = search_pb2.SearchRequest(
            collection="window", k=2, queries=[search_pb2.Query(item_id="shop-0")]
        )
        hits.page_token = (await wire.search.Search(hits)).results[0].next_page_token
        assert [item.id for item in (await wire.items.ListItems(items)).items] == ["shop-2", "shop-3"]
        await wire.collections.SetAlias(pb.SetAliasRequest(alias="window", collection="other"))
        for call, request in ((wire.items.ListItems, items), (wire.search.Search, hits)):
            with pytest.raises(Exception, match=r"page_token belongs to another request|shop-0"):
                await call(request)

    run_over_wire(tmp_path, test)
