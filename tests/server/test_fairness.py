"""Turns between clients, in the line and at the door."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from lookalike_server.admission import Room
from lookalike_server.batcher import Line
from lookalike_server.jobs import Call, Job
from lookalike_server.turns import Turns


def job(client: str, number: int = 0, model: int = 0) -> Job:
    call = Call(done=None, pending=1, bulk=False, client=client)  # type: ignore[arg-type]
    return Job(call, f"{client}{number}".encode(), model, size=1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers())))
def test_turns_lose_nothing_and_keep_the_order_of_each_client(things: list[tuple[str, int]]) -> None:
    turns: Turns[tuple[str, int]] = Turns()
    for client, number in things:
        turns.put(client, (client, number))
    taken = [turns.take() for _ in range(len(turns))]
    for client in "abc":
        assert [thing for thing in taken if thing[0] == client] == [t for t in things if t[0] == client]
    assert not turns


def test_who_sends_much_waits_behind_himself() -> None:
    line = Line()
    line.put(job("greedy", number) for number in range(50))
    line.put([job("modest")])
    batch = line.take_batch(4)
    assert batch is not None
    assert "modest" in {each.call.client for each in batch.jobs}


def test_models_take_turns() -> None:
    line = Line()
    line.put(job("a", number) for number in range(9))
    line.put([job("a", model=1)])
    models = [line.take_batch(3).model for _ in range(2)]  # type: ignore[union-attr]
    assert models == [0, 1]


def test_a_greedy_client_leaves_room_at_the_door() -> None:
    room = Room(90, 10_000)
    while room.enter(1, 1, "greedy"):
        pass
    assert room.images == 80
    assert room.enter(5, 5, "modest")


def test_streams_of_one_client_do_not_keep_another_out() -> None:
    async def main() -> list[str]:
        room, entered = Room(4, 1000), []
        room.enter(3, 3)

        async def wait(client: str) -> None:
            await room.wait(3, 3, client)
            entered.append(client)
            room.leave(3, 3, client)

        tasks = [asyncio.create_task(wait(client)) for client in ("a", "a", "a", "b")]
        await asyncio.sleep(0)
        room.leave(3, 3)
        await asyncio.gather(*tasks)
        return entered

    assert asyncio.run(main()) == ["a", "b", "a", "a"]
