"""Ranges, groups, pages, explanations: each held against what a plain loop over all items says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from lookalike.v1 import search_pb2 as pb
from lookalike_server.answers import Ask, Hit
from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.rows import NewRow
from lookalike_server.scan import exact_scores
from lookalike_server.services import search as search_service
from made_rows import SPACE, pointing, row
from over_wire import Wire, run_over_wire, tensor

QUERY = pointing(1, 0.5)
BRANDS: list[Any] = ["acme", "zenith", 1, 1.0, True, None, [1], "1"]


def brand_of(i: int) -> Any:
    return BRANDS[i * i % 7 + i % 2]


def filled(root: Path, count: int = 150) -> Collection:
    shop = Catalog(root).create("shop", SPACE)
    random = np.random.default_rng(3)
    directions = random.integers(-2, 3, (count, 4)).astype(np.float32)
    directions[:, 0] += 2.5  # few directions: many ties
    attributes = [json.dumps({"n": i, "maker": {"brand": brand_of(i)}}) for i in range(count)]
    names = [f"item-{i:03}" for i in random.permutation(count)]
    shop.upsert([NewRow(n, d, a) for n, d, a in zip(names, directions, attributes, strict=True)])
    return shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    collection = filled(tmp_path_factory.mktemp("data"))
    yield collection
    collection.close()


def ranked(shop: Collection, where: str = "") -> list[Hit]:
    """All items in the order of hits."""
    everything = shop.snapshot(where)
    scores = exact_scores(QUERY, everything.descriptors).tolist()
    hits = [Hit(*values) for values in zip(everything.ids, scores, everything.attributes_json, strict=True)]
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))


def asked(shop: Collection, ask: Ask, own: str = "") -> list[Hit]:
    return shop.ask(QUERY[None], ask, [own]).hits[0]


@pytest.mark.parametrize("where", ["", "n < 40"])
@pytest.mark.parametrize("least", [-1.0, 0.5, 0.9, 2.0])
def test_a_range_is_all_items_of_at_least_that_score(shop: Collection, where: str, least: float) -> None:
    expected = [hit for hit in ranked(shop, where) if hit.score >= least]
    assert asked(shop, Ask(1000, where, least, every=True)) == expected
    own = expected[0].id if expected else ""
    assert asked(shop, Ask(1000, where, least, every=True), own) == expected[1:]


def test_a_range_of_more_than_its_bound_is_the_nearest_and_says_so(shop: Collection) -> None:
    result = shop.ask(QUERY[None], Ask(7, "", 0.2, every=True))
    assert result.hits[0] == ranked(shop)[:7]
    assert result.more == [True]


def brute_groups(hits: list[Hit], k: int, size: int) -> list[str]:
    groups: dict[Any, list[Hit]] = {}
    for hit in hits:
        value = json.loads(hit.attributes_json)["maker"]["brand"]
        lone = value is None or isinstance(value, list)
        key = hit.id if lone else (isinstance(value, bool), isinstance(value, str), value)
        groups.setdefault(key, []).append(hit)
    chosen = [hit for group in list(groups.values())[:k] for hit in group[:size]]
    return [hit.id for hit in sorted(chosen, key=lambda hit: (-hit.score, hit.id))]


@pytest.mark.parametrize("where", ["", "n >= 30"])
@pytest.mark.parametrize("size", [1, 2, 50])
@pytest.mark.parametrize("k", [1, 3, 1000])
def test_groups_are_the_nearest_of_equal_values(shop: Collection, k: int, size: int, where: str) -> None:
    hits = asked(shop, Ask(k, where, group_by="maker.brand", group_size=size))
    assert [hit.id for hit in hits] == brute_groups(ranked(shop, where), k, size)


def test_hits_of_a_group_carry_its_value_and_those_of_none_nothing(shop: Collection) -> None:
    for hit in asked(shop, Ask(1000, group_by="maker.brand")):
        value = json.loads(hit.attributes_json)["maker"]["brand"]
        assert hit.group_json == (
            "" if value is None or value == [1] else json.dumps(value).replace(".0", "")
        )


@pytest.mark.parametrize("own", ["", "item-004"])
def test_pages_put_together_are_all_items_in_order(shop: Collection, own: str) -> None:
    expected = [hit for hit in ranked(shop) if hit.id != own]
    hits: list[Hit] = []
    while True:
        after = hits[-1].place if hits else None
        result = shop.ask(QUERY[None], Ask(17, after=after, passed=len(hits) // 2), [own])
        hits += result.hits[0]
        if not result.more[0]:
            break
    assert hits == expected


def test_over_the_wire_pages_go_on_while_items_are_written(tmp_path: Path) -> None:
    async def test(wire: Wire) -> None:
        shop = wire.catalog.get("shop")
        shop.upsert([row(f"{i:02}", 1, i) for i in range(10)])
        query = pb.Query(descriptor=tensor([1, 0, 0, 0]))
        first = (await wire.find(query, k=4)).results[0]
        assert first.more
        shop.upsert([row("before", 1, 0.5), row("behind", 1, 6.5), row("00", 1, 9.5)])
        ids, token = [hit.id for hit in first.hits], first.next_page_token
        while token:
            page = (await wire.find(query, k=4, page_token=token)).results[0]
            ids, token = ids + [hit.id for hit in page.hits], page.next_page_token
        assert ids == ["00", "01", "02", "03", "04", "05", "06", "behind", "07", "08", "09", "00"]
        bounded = (await wire.find(query, k=4, min_score=0.5)).results[0]
        assert ([hit.id for hit in bounded.hits], bounded.more, bounded.next_page_token) == (
            ["before", "01"],
            False,
            "",
        )

    run_over_wire(tmp_path, test)


def test_over_the_wire_ranges_and_groups_are_answered_and_explained(tmp_path: Path) -> None:
    async def test(wire: Wire) -> None:
        shop = wire.catalog.get("shop")
        shop.upsert([row(f"{i:02}", 1, i / 10, brand=i % 3, n=i) for i in range(30)])
        query = pb.Query(descriptor=tensor([1, 0, 0, 0]))
        ranged = await wire.find(query, query, range=True, min_score=0.9, explain=True, where="n < 25")
        assert [[hit.id for hit in r.hits] for r in ranged.results] == [["00", "01", "02", "03", "04"]] * 2
        explained = ranged.explanation
        assert (explained.items, explained.fitting, explained.compared, explained.queries) == (30, 25, 25, 2)
        assert "exact" in explained.plan
        assert min(explained.scan_seconds, explained.rows_seconds, explained.filter_seconds) > 0
        grouped = (await wire.find(query, k=2, group_by="brand", group_size=2)).results[0]
        assert [(hit.id, hit.group_json) for hit in grouped.hits] == [
            ("00", "0"),
            ("01", "1"),
            ("03", "0"),
            ("04", "1"),
        ]
        assert not (await wire.find(query)).HasField("explanation")

    run_over_wire(tmp_path, test)


def test_a_search_waits_for_a_sequence_number_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_service, "_SEQUENCE_SECONDS", 0.2)

    async def test(wire: Wire) -> None:
        shop = wire.catalog.get("shop")
        query = pb.Query(descriptor=tensor([1, 0, 0, 0]))
        waiting = asyncio.ensure_future(wire.find(query, min_sequence=2))
        await asyncio.sleep(0.05)
        shop.upsert([row("a")])
        await asyncio.sleep(0.05)
        assert not waiting.done()
        shop.upsert([row("b")])
        assert [hit.id for hit in (await waiting).results[0].hits] == ["a", "b"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.find(query, min_sequence=3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "is at sequence number 2" in str(caught.value.details())

    run_over_wire(tmp_path, test)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"range": True}, "min_score"),
        ({"range": True, "min_score": 0.5, "k": 10_001}, "at most 10000"),
        ({"range": True, "min_score": 0.5, "group_by": "a"}, "range and group_by"),
        ({"group_by": "a", "page_token": "x"}, "group_by and page_token"),
        ({"group_by": "a b"}, "attribute to group by cannot be read"),
        ({"group_by": "a", "group_size": 101}, "at most 100"),
        ({"page_token": "x"}, "not one that this server gave"),
        ({"page_token": "AAAAAAAAAAAAAAAA"}, "another request"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    async def test(wire: Wire) -> None:
        query: Message = pb.Query(descriptor=tensor([1, 0, 0, 0]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.find(query, **options)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert words in str(caught.value.details())

    run_over_wire(tmp_path, test)


def test_a_page_token_fits_its_own_request_only(tmp_path: Path) -> None:
    async def test(wire: Wire) -> None:
        wire.catalog.get("shop").upsert([row(f"{i}", 1, i) for i in range(5)])
        query, other = pb.Query(descriptor=tensor([1, 0, 0, 0])), pb.Query(descriptor=tensor([0, 1, 0, 0]))
        token = (await wire.find(query, k=1)).results[0].next_page_token
        for queries, options in (([other], {}), ([query], {"where": "n = 1"}), ([query, query], {})):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await wire.find(*queries, page_token=token, **options)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    run_over_wire(tmp_path, test)
