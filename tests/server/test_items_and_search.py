"""Collections, items and searches over the real wire, with an engine made by hand."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import code_pb2, status_pb2
from lookalike.v1 import (
    collections_pb2,
    items_pb2,
    search_pb2,
)
from lookalike_extractor.recipe import Space
from made_rows import SPACE, row
from over_wire import HandEngine, Wire, described, image_query, info, pictured, run_over_wire, serving, tensor

Invalid = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def over_the_wire(tmp_path: Path) -> Callable[[Callable[[Wire], Awaitable[None]]], None]:
    return partial(run_over_wire, tmp_path)


Run = Callable[[Callable[[Wire], Awaitable[None]]], None]


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, str]:
    """Returns code, reason and field of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailers = dict(caught.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])  # type: ignore[arg-type]
    detail = info(status)
    return caught.value.code(), detail.reason, detail.metadata["field"]


def test_a_collection_is_made_described_listed_and_deleted(over_the_wire: Run) -> None:
    async def test(wire: Wire) -> None:
        made = await wire.collections.CreateCollection(collections_pb2.CreateCollectionRequest(name="hats"))
        assert made.collection.space.id == SPACE.id
        assert made.collection.recipe == "by_hand"
        assert made.collection.create_time.seconds > 1_700_000_000
        await wire.upsert(described("a", 1, 0, 0, 0), collection="hats")
        got = await wire.collections.GetCollection(collections_pb2.GetCollectionRequest(name="hats"))
        assert (got.collection.item_count, got.collection.sequence) == (1, 1)
        listed = await wire.collections.ListCollections(collections_pb2.ListCollectionsRequest())
        assert [c.name for c in listed.collections] == ["hats", "shop"]
        await wire.collections.DeleteCollection(collections_pb2.DeleteCollectionRequest(name="hats"))
        call = wire.collections.GetCollection(collections_pb2.GetCollectionRequest(name="hats"))
        assert (await refusal(call))[:2] == (grpc.StatusCode.NOT_FOUND, "COLLECTION_UNKNOWN")

    over_the_wire(test)


def test_images_and_descriptors_are_written_found_read_and_deleted(over_the_wire: Run) -> None:
    async def test(wire: Wire) -> None:
        written = await wire.upsert(pictured("photo", b"1,0", price=5), described("vector", 0, 2, 0, 0))
        assert (written.inserted, written.replaced, written.sequence) == (2, 0, 2)
        found = await wire.find(
            image_query(b"1,0.1"),
            search_pb2.Query(descriptor=tensor([0, 9, 0, 0])),
            search_pb2.Query(item_id="photo"),
            k=1,
        )
        assert [[hit.id for hit in result.hits] for result in found.results] == [
            ["photo"],
            ["vector"],
            ["vector"],
        ]
        assert found.sequence == 2
        got = await wire.items.GetItems(
            items_pb2.GetItemsRequest(collection="shop", ids=["vector", "photo"], include_descriptors=True)
        )
        assert [item.id for item in got.items] == ["vector", "photo"]
        assert np.frombuffer(got.items[0].descriptor.data, "<f4").tolist() == [0, 1, 0, 0]
        assert got.items[1].digest == hashlib.sha256(b"1,0").digest()
        assert json.loads(got.items[1].attributes_json) == {"price": 5}
        gone = await wire.items.DeleteItems(
            items_pb2.DeleteItemsRequest(collection="shop", ids=["photo", "nobody"])
        )
        assert (gone.deleted, gone.missing, gone.sequence) == (1, 1, 3)

    over_the_wire(test)


def test_one_wrong_item_keeps_the_whole_call_out_and_is_named(over_the_wire: Run) -> None:
    wrong: list[tuple[items_pb2.NewItem, str, str]] = [
        (pictured("", b"1,0"), "ARGUMENT_INVALID", "items[1].id"),
        (pictured("x", b"bad"), "IMAGE_CORRUPT", "items[1].image"),
        (pictured("x", b""), "IMAGE_MISSING", "items[1].image.data"),
        (items_pb2.NewItem(id="x"), "ARGUMENT_INVALID", "items[1].content"),
        (pictured("good", b"1,0"), "ARGUMENT_INVALID", "items[1].id"),
        (described("x", 1, 0), "DESCRIPTOR_INVALID", "items[1].descriptor"),
        (described("x", 0, 0, 0, 0), "DESCRIPTOR_INVALID", "items[1].descriptor"),
        (described("x", 1, 0, 0, 0, attributes_json="[]"), "ATTRIBUTES_INVALID", "items[1].attributes_json"),
    ]

    async def test(wire: Wire) -> None:
        for item, reason, field in wrong:
            call = wire.upsert(pictured("good", b"1,0"), item)
            assert await refusal(call) == (Invalid, reason, field)
        other_space = described("x", 1, 0, 0, 0, space_id="other")
        code, reason, _ = await refusal(wire.upsert(other_space))
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SPACE_MISMATCH")
        assert (await refusal(wire.upsert()))[1] == "ARGUMENT_INVALID"
        many = [described(str(i), 1, 0, 0, 0) for i in range(9)]
        assert (await refusal(wire.upsert(*many)))[1] == "MESSAGE_TOO_LARGE"
        assert wire.catalog.get("shop").count == 0

    over_the_wire(test)


def test_a_stream_writes_the_good_items_of_each_chunk_and_names_the_others(over_the_wire: Run) -> None:
    chunks = [
        [pictured("a", b"1,0"), pictured("b", b"bad"), pictured("a", b"0,1")],
        [pictured("c", b"bad")],
        [described("d", 1, 0, 0, 0)],
    ]

    async def test(wire: Wire) -> None:
        answers = await streamed(wire, chunks)
        codes = {chunk: [status.code for status in answer.statuses] for chunk, answer in answers.items()}
        assert codes == {0: [0, 3, 3], 1: [3], 2: [0]}
        assert info(answers[0].statuses[1]).metadata["field"] == "request.items[1].image"
        assert (answers[0].response.inserted, answers[1].response.inserted) == (1, 0)
        assert sorted(wire.catalog.get("shop").get(["a", "b", "c", "d"])) == ["a", "d"]

    over_the_wire(test)


async def streamed(
    wire: Wire, chunks: Sequence[Sequence[items_pb2.NewItem]]
) -> dict[int, items_pb2.UpsertItemsStreamResponse]:
    async def requests() -> AsyncIterator[items_pb2.UpsertItemsStreamRequest]:
        for i, items in enumerate(chunks):
            request = items_pb2.UpsertItemsRequest(collection="shop", items=items)
            yield items_pb2.UpsertItemsStreamRequest(chunk_id=i, request=request)

    return {answer.chunk_id: answer async for answer in wire.items.UpsertItemsStream(requests())}


def test_the_last_of_an_id_in_a_stream_wins_even_when_its_image_is_ready_first(over_the_wire: Run) -> None:
    async def test(wire: Wire) -> None:
        await streamed(wire, [[pictured("a", b"1,%d" % i, turn=i)] for i in range(20)])
        assert wire.catalog.get("shop").get(["a"])["a"].attributes_json == '{"turn":19}'

    over_the_wire(test)


def test_a_stream_to_an_unknown_collection_ends_with_its_status(over_the_wire: Run) -> None:
    async def test(wire: Wire) -> None:
        wire.catalog.delete("shop")
        code, reason, _ = await refusal(streamed(wire, [[pictured("a", b"1,0")]]))
        assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "COLLECTION_UNKNOWN")

    over_the_wire(test)


def test_a_query_that_is_wrong_fails_alone(over_the_wire: Run) -> None:
    queries = [
        (image_query(b"bad"), "IMAGE_CORRUPT", "queries[0].image"),
        (search_pb2.Query(item_id="nobody"), "ITEM_UNKNOWN", "queries[1].item_id"),
        (search_pb2.Query(descriptor=tensor([1, 2])), "DESCRIPTOR_INVALID", "queries[2].descriptor"),
        (search_pb2.Query(descriptor=tensor([1] * 4), space_id="x"), "SPACE_MISMATCH", "queries[3].space_id"),
        (search_pb2.Query(), "ARGUMENT_INVALID", "queries[4].query"),
        (search_pb2.Query(item_id=""), "ARGUMENT_INVALID", "queries[5].id"),
    ]

    async def test(wire: Wire) -> None:
        await wire.upsert(described("a", 1, 0, 0, 0))
        found = await wire.find(*(query for query, _, _ in queries), image_query(b"1,0"))
        for result, (_, reason, field) in zip(found.results, queries, strict=False):
            assert (info(result.status).reason, info(result.status).metadata["field"]) == (reason, field)
            assert not result.hits
        assert [hit.id for hit in found.results[6].hits] == ["a"]

    over_the_wire(test)


def test_a_search_that_is_wrong_as_a_whole_is_refused_before_any_image_is_embedded(tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({"k": 51}, "ARGUMENT_INVALID", "k"),
        ({"min_score": float("nan")}, "ARGUMENT_INVALID", "min_score"),
        ({"where": "price <"}, "FILTER_INVALID", "where"),
    ]

    async def test() -> None:
        engine = HandEngine()
        async with serving(tmp_path, engine) as wire:
            wire.catalog.create("shop", SPACE)
            for options, reason, field in wrong:
                call = wire.find(image_query(b"1,0"), **options)
                assert await refusal(call) == (Invalid, reason, field)
            assert (await refusal(wire.find()))[1] == "ARGUMENT_INVALID"
            assert engine.seen == []

    asyncio.run(test())


def test_ten_hits_come_unless_told_otherwise_and_a_filter_and_a_least_score_hold(over_the_wire: Run) -> None:
    async def test(wire: Wire) -> None:
        rows = [row(f"{i:02}", 1, i / 10, price=i) for i in range(20)]
        wire.catalog.get("shop").upsert(rows)
        query = image_query(b"1,0")
        assert len((await wire.find(query)).results[0].hits) == 10
        found = await wire.find(query, k=50, where="price >= 5 and price < 8")
        assert [hit.id for hit in found.results[0].hits] == ["05", "06", "07"]
        found = await wire.find(query, min_score=0.99)
        assert [hit.id for hit in found.results[0].hits] == ["00", "01"]

    over_the_wire(test)


def test_pages_hold_every_item_once_while_others_are_written_and_deleted(over_the_wire: Run) -> None:
    async def test(wire: Wire) -> None:
        shop = wire.catalog.get("shop")
        shop.upsert([row(f"{i:02}", n=i) for i in range(10)])
        first = await wire.page(page_size=4)
        shop.delete(["00", "05"])
        shop.upsert([row("new", n=99)])
        second = await wire.page(page_size=4, page_token=first.next_page_token)
        third = await wire.page(page_size=4, page_token=second.next_page_token)
        pages = [[item.id for item in page.items] for page in (first, second, third)]
        assert pages == [["00", "01", "02", "03"], ["04", "06", "07", "08"], ["09", "new"]]
        assert third.next_page_token == ""
        filtered = await wire.page(where="n < 3")
        assert ([item.id for item in filtered.items], filtered.next_page_token) == (["01", "02"], "")

    over_the_wire(test)


def test_who_has_read_all_reads_what_came_since(over_the_wire: Run) -> None:
    async def test(wire: Wire) -> None:
        written = await wire.upsert(*(described(f"{i}", 1, i, 0, 0) for i in range(3)))
        assert not (await wire.page(after_sequence=written.sequence)).items
        await wire.upsert(described("1", 0, 1, 0, 0), described("new", 1, 0, 0, 0))
        since = await wire.page(after_sequence=written.sequence, page_size=1)
        rest = await wire.page(page_token=since.next_page_token, after_sequence=written.sequence)
        assert [item.id for item in (*since.items, *rest.items)] == ["1", "new"]
        assert not (await wire.page(after_sequence=2**64 - 1)).items

    over_the_wire(test)


def test_a_token_is_refused_with_another_filter_and_when_it_is_made_up(over_the_wire: Run) -> None:
    async def test(wire: Wire) -> None:
        wire.catalog.get("shop").upsert([row("a"), row("b")])
        token = (await wire.page(page_size=1)).next_page_token
        for options in ({"page_token": token, "where": "n = 1"}, {"page_token": "x"}, {"page_token": "AAAA"}):
            assert (await refusal(wire.page(**options)))[1] == "PAGE_TOKEN_INVALID"
        assert (await refusal(wire.page(page_size=1001)))[2] == "page_size"

    over_the_wire(test)


def test_missing_items_are_an_error_unless_allowed(over_the_wire: Run) -> None:
    async def test(wire: Wire) -> None:
        await wire.upsert(described("a", 1, 0, 0, 0))
        request = items_pb2.GetItemsRequest(collection="shop", ids=["a", "b", "c"])
        code, reason, _ = await refusal(wire.items.GetItems(request))
        assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "ITEM_UNKNOWN")
        request.allow_missing = True
        assert [item.id for item in (await wire.items.GetItems(request)).items] == ["a"]

    over_the_wire(test)


def test_when_the_recipe_changes_images_are_refused_and_all_else_goes_on(tmp_path: Path) -> None:
    async def test() -> None:
        changed = Space(id="space-after-change", dimension=4, recipe="by_hand")
        async with serving(tmp_path, HandEngine(changed)) as wire:
            wire.catalog.create("shop", SPACE).upsert([row("a", 1, 0), row("b", 0, 1)])
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await wire.upsert(pictured("c", b"1,0"))
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert SPACE.id in str(caught.value.details())
            assert changed.id in str(caught.value.details())
            found = await wire.find(
                image_query(b"1,0"),
                search_pb2.Query(item_id="a"),
                search_pb2.Query(descriptor=tensor([1, 0, 0, 0])),
            )
            assert found.results[0].status.code == code_pb2.FAILED_PRECONDITION
            assert [[hit.id for hit in result.hits] for result in found.results[1:]] == [["b"], ["a", "b"]]
            await wire.upsert(described("c", 1, 1, 0, 0, space_id=SPACE.id))

    asyncio.run(test())
