"""What both clients can ask of a search, over the wire of a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from lookalike import AsyncClient, Client
from lookalike.aio import AsyncCollection
from lookalike.collection import Collection
from lookalike.errors import InvalidArgument
from lookalike.records import Limits
from made_rows import row
from over_wire import Wire, run_over_wire

LIMITS = Limits(8, 2**20, 2**20, 10**6, 50)
QUERY = [1.0, 0.0, 0.0, 0.0]


def with_both(root: Path, test: Callable[[Collection, AsyncCollection], Awaitable[None]]) -> None:
    """Runs a test with both clients' views of a collection of ten items, three brands and one place."""

    async def run(wire: Wire) -> None:
        items = [row(f"{i}", 1, i, brand=i % 3) for i in range(10)]
        wire.catalog.get("shop").upsert(items)
        with client_of(wire.target) as client:
            async with AsyncClient(wire.target) as other:
                other._limits = LIMITS
                await test(Collection(client, "shop"), AsyncCollection(other, "shop"))

    run_over_wire(root, run)


@contextmanager
def client_of(target: str) -> Iterator[Client]:
    with Client(target) as client:
        client._limits = LIMITS
        yield client


def test_ranges_groups_and_explanations_come_back_in_words_of_python(tmp_path: Path) -> None:
    async def test(shop: Collection, other: AsyncCollection) -> None:
        near = await asyncio.to_thread(
            shop.search, vector=QUERY, range=True, min_score=0.4, explain=True, min_sequence=3
        )
        assert [hit.id for hit in near] == ["0", "1", "2"]
        assert (near.more, near.sequence) == (False, 10)
        assert near.explanation is not None
        assert (near.explanation.items, near.explanation.queries) == (10, 1)
        groups = await other.search(vector=QUERY, group_by="brand", group_size=2, k=2)
        assert [(hit.id, hit.group) for hit in groups] == [("0", 0), ("1", 1), ("3", 0), ("4", 1)]
        assert groups.explanation is None
        assert (await other.search(vector=QUERY, k=3)).more

    with_both(tmp_path, test)


def test_hits_are_browsed_page_by_page(tmp_path: Path) -> None:
    async def test(shop: Collection, other: AsyncCollection) -> None:
        expected = [str(i) for i in range(10)]
        hits = await asyncio.to_thread(lambda: list(shop.browse(vector=QUERY, k=3)))
        assert [hit.id for hit in hits] == expected
        assert [hit.id async for hit in other.browse(id="0", k=4)] == expected[1:]

    with_both(tmp_path, test)


def test_what_the_server_does_not_take_is_refused_by_both(tmp_path: Path) -> None:
    async def test(shop: Collection, other: AsyncCollection) -> None:
        with pytest.raises(InvalidArgument, match="min_score"):
            await asyncio.to_thread(shop.search, vector=QUERY, range=True)
        with pytest.raises(InvalidArgument, match="group_size is at least 1"):
            await other.search(vector=QUERY, group_by="brand", group_size=0)
        for option, value in {"k": 2**40, "min_score": "high", "where": 3, "min_sequence": -1}.items():
            with pytest.raises(InvalidArgument, match=f"{option} cannot be "):
                await other.search(vector=QUERY, **{option: value})  # type: ignore[misc]
        with pytest.raises(TypeError, match="no option 'top_k'; it has k, min_score"):
            await other.search(vector=QUERY, top_k=3)  # type: ignore[call-arg]

    with_both(tmp_path, test)


def test_queries_that_are_none_are_refused_in_words(tmp_path: Path) -> None:
    async def test(shop: Collection, other: AsyncCollection) -> None:
        for vector, told in [
            ([1.0, 2.0], r"^vectors\[0\] has shape \[2\]; collection 'shop' takes \[4\]"),
            ([1e300, 0, 0, 0], r"^vectors\[0\]: The descriptor holds NaN or infinity"),
            (np.ones(4, complex), "^a descriptor is a vector of numbers"),
        ]:
            with pytest.raises(InvalidArgument, match=told):
                await other.search(vector=vector)
        with pytest.raises(InvalidArgument, match="give a descriptor as vector="):
            await asyncio.to_thread(shop.search, np.ones(4, np.float32))

    with_both(tmp_path, test)
