"""Searches of concurrent callers: one batch while the threads are busy, each with its own answer or fault."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from lookalike_server.answers import Ask, Hit, SearchResult
from lookalike_server.services.together import Together


class SlowCollection:
    """Answers each query with its own number, once it is let go; notes the size of each batch."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[int] = []

    def ask(self, queries: np.ndarray, ask: Ask, exclude: list[str]) -> SearchResult:
        assert len(exclude) == len(queries)
        self.batches.append(len(queries))
        assert self.go.wait(60)
        if ask.where == "fault":
            raise ValueError("a fault")
        hits = [[Hit(str(int(query[0])), 1.0, "{}")] * ask.k for query in queries]
        return SearchResult(7, hits, [False] * len(queries))


async def ask(
    together: Together, collection: Any, *numbers: int, k: int = 1, where: str = ""
) -> list[list[str]]:
    queries = np.array([[n] for n in numbers], np.float32)
    result = await together.search(collection, queries, Ask(k, where), exclude=[""] * len(numbers))
    return [[hit.id for hit in hits] for hits in result.hits]


def run(test: Any) -> None:
    async def all_of_it() -> None:
        with ThreadPoolExecutor(2) as workers:
            collection = SlowCollection()
            try:
                await test(Together(workers, threads=1), collection)
            finally:
                collection.go.set()

    asyncio.run(all_of_it())


def test_those_who_wait_become_one_batch_and_each_gets_its_own_answer() -> None:
    async def test(together: Together, collection: SlowCollection) -> None:
        calls = [asyncio.create_task(ask(together, collection, i, 100 + i)) for i in range(5)]
        await asyncio.sleep(0.05)
        collection.go.set()
        assert await asyncio.gather(*calls) == [[[str(i)], [str(100 + i)]] for i in range(5)]
        assert collection.batches == [2, 8]

    run(test)


def test_a_batch_has_a_most_and_a_call_larger_than_it_goes_alone() -> None:
    async def test(together: Together, collection: SlowCollection) -> None:
        calls = [asyncio.create_task(ask(together, collection, *range(n))) for n in (1, 200, 50, 20, 300)]
        await asyncio.sleep(0.05)
        collection.go.set()
        assert [len(answer) for answer in await asyncio.gather(*calls)] == [1, 200, 50, 20, 300]
        assert collection.batches == [1, 250, 20, 300]

    run(test)


def test_other_filters_and_other_k_are_searched_apart_and_a_fault_stays_with_its_own() -> None:
    async def test(together: Together, collection: SlowCollection) -> None:
        calls = [
            asyncio.create_task(ask(together, collection, 1)),
            asyncio.create_task(ask(together, collection, 2, where="fault")),
            asyncio.create_task(ask(together, collection, 3, k=2)),
        ]
        await asyncio.sleep(0.05)
        collection.go.set()
        assert await calls[0] == [["1"]]
        with pytest.raises(ValueError, match="a fault"):
            await calls[1]
        assert await calls[2] == [["3", "3"]]

    run(test)


def test_a_caller_who_has_left_is_not_searched_for() -> None:
    async def test(together: Together, collection: SlowCollection) -> None:
        first = asyncio.create_task(ask(together, collection, 1))
        left = asyncio.create_task(ask(together, collection, 2))
        last = asyncio.create_task(ask(together, collection, 3))
        await asyncio.sleep(0.05)
        left.cancel()
        collection.go.set()
        assert (await first, await last) == ([["1"]], [["3"]])
        assert collection.batches == [1, 1]

    run(test)
