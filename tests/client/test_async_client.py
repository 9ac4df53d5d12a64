"""The asynchronous client does what its twin does."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fake_server import DIMENSION, FakeServer, descriptor
from lookalike import AsyncClient, AsyncCollection, Client, Collection, errors

RESET = (grpc.StatusCode.CANCELLED, "", "reset")  # what a stopping server does to calls it has not begun
UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "DRAINING", "the server is stopping")


@pytest.fixture
def talk(server: FakeServer) -> Callable[[Callable[[AsyncClient], Awaitable[Any]]], Any]:
    """Runs a conversation with the server to its end."""

    async def whole(conversation: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
        async with AsyncClient(server.target) as client:
            return await conversation(client)

    return lambda conversation: asyncio.run(whole(conversation))


@pytest.mark.parametrize(("twin", "original"), [(AsyncClient, Client), (AsyncCollection, Collection)])
def test_the_twins_have_the_same_methods_and_parameters(twin: type, original: type) -> None:
    def methods(cls: type) -> dict[str, list[str]]:
        members = inspect.getmembers(cls, callable)
        return {name: list(inspect.signature(m).parameters) for name, m in members if name[0] != "_"}

    assert methods(twin) == methods(original)


def test_pictures_become_descriptors_in_order(talk: Any, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"cat")

    async def conversation(client: AsyncClient) -> None:
        np.testing.assert_allclose(await client.embed(tmp_path / "cat.jpg"), descriptor(b"cat"))
        pictures = [str(i).encode() for i in range(100)] + [b"bad", tmp_path / "nowhere.jpg"]
        results = [result async for result in client.embed_many(pictures, on_error="report")]
        assert [result.index for result in results] == list(range(102))
        np.testing.assert_allclose(results[99].descriptor, descriptor(b"99"))
        assert [r.failure.reason for r in results[100:]] == ["IMAGE_TRUNCATED", "FILE_NOT_FOUND"]
        with pytest.raises(errors.InvalidArgument, match=r"images\[0\]"):
            await anext(client.embed_many([b"bad"]))

    talk(conversation)


@pytest.mark.parametrize("fault", [UNAVAILABLE, RESET], ids=["unavailable", "reset"])
def test_a_broken_stream_loses_nothing(talk: Any, server: FakeServer, fault: Any) -> None:
    server.fail("chunk", fault, fault)

    async def conversation(client: AsyncClient) -> None:
        shop = await client.create_collection("shop")
        pictures = [str(i).encode() for i in range(100)]
        report = await shop.add(pictures, ids=[str(i) for i in range(100)])
        assert (report.added, (await shop.info()).item_count) == (100, 100)

    talk(conversation)
    assert server.calls["UpsertItemsStream"] == 3


def test_a_collection_is_searched_read_and_emptied(talk: Any) -> None:
    async def conversation(client: AsyncClient) -> None:
        shop = await client.create_collection("shop")
        await shop.add([b"cat", b"dog", b"cat"], ids=list("abc"), attributes=[{"n": 1}, {}, {}])
        await shop.upsert(["d"], [descriptor(b"owl")])
        assert (await shop.search(b"dog", k=1))[0].id == "b"
        assert len(await shop.search([b"cat", b"dog"])) == 2
        assert (await shop.get("a")).attributes == {"n": 1}
        assert [item.id async for item in shop.items()] == list("abcd")
        assert next(iter(await shop.get(["a"], descriptors=True))).descriptor.shape == (DIMENSION,)
        (group,) = await shop.find_duplicates()
        assert [member.id for member in group.members] == ["a", "c"]
        assert await shop.delete(["a", "z"]) == 1
        await client.delete_collection("shop")
        assert await client.collections() == []
        with pytest.raises(errors.NotFound):
            await client.collection("shop")

    talk(conversation)


def test_a_cancelled_search_for_duplicates_is_cancelled_on_the_server(talk: Any, server: FakeServer) -> None:
    server.delay = 0.3

    async def conversation(client: AsyncClient) -> None:
        shop = await client.create_collection("shop")
        started = asyncio.Event()
        task = asyncio.create_task(shop.find_duplicates(progress=lambda _: started.set()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    talk(conversation)
    assert server.cancelled_jobs == ["job-1"]


def test_jobs_and_copies_can_be_asked_for(talk: Any) -> None:
    async def conversation(client: AsyncClient) -> None:
        shop = await client.create_collection("shop")
        assert (await shop.add_unless_duplicate(b"cat", id="a")).added
        assert not (await shop.add_unless_duplicate(b"cat", id="b")).added
        assert (await shop.check_duplicate(b"cat")).matches[0].id == "a"
        job = await shop.start_duplicate_job(policy="sharpest")
        assert (await client.jobs.get(job.id)).policy == "sharpest"
        assert (await client.jobs.wait(job.id)).state == "succeeded"
        assert [group async for group in client.jobs.groups(job.id)] == []
        assert [found.id for found in await client.jobs.all()] == [job.id]
        await client.jobs.delete(job.id)

    talk(conversation)


def test_the_server_describes_itself(talk: Any) -> None:
    async def conversation(client: AsyncClient) -> None:
        assert (await client.info()).version == "9.9"
        assert [recipe.name for recipe in await client.recipes()] == ["near_duplicate"]
        assert [backbone.name for backbone in await client.backbones()] == ["tiny"]
        assert [node.name for node in await client.nodes("tiny")] == ["body.act"]

    talk(conversation)


def test_a_timeout_is_a_deadline_and_many_calls_go_side_by_side(talk: Any, server: FakeServer) -> None:
    server.delay = 1.0

    async def conversation(client: AsyncClient) -> None:
        await client.limits()
        await asyncio.gather(*(client.embed(str(i).encode()) for i in range(6)))
        assert server.most_at_once > 1
        with pytest.raises(errors.DeadlineExceeded):
            await client.embed(b"cat", timeout=0.05)

    talk(conversation)


def test_the_deadline_of_a_stream_is_not_stretched_by_retries(talk: Any, server: FakeServer) -> None:
    server.fail("chunk", *[UNAVAILABLE] * 20)

    async def conversation(client: AsyncClient) -> None:
        await client.limits()
        with pytest.raises(errors.DeadlineExceeded):
            _ = [result async for result in client.embed_many([b"cat"], timeout=0.6)]
        assert server.calls["EmbedStream"] <= 3  # the pause after the third is longer than the timeout

    talk(conversation)


def test_forgetting_to_close_warns(server: FakeServer) -> None:
    async def conversation() -> None:
        client = AsyncClient(server.target)
        with pytest.warns(ResourceWarning, match="unclosed AsyncClient"):
            client.__del__()
        await client.close()

    asyncio.run(conversation())
