"""What the bidirectional streams share: chunks answered out of order, and a sender that is held back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from lookalike_server.errors import Draining

Request = TypeVar("Request")
Response = TypeVar("Response")

# Enough to keep decoding and device busy at once, few enough that a stream holds little memory.
_CHUNKS_IN_FLIGHT = 8


async def answer_chunks(
    requests: AsyncIterable[Request],
    answer: Callable[[Request], Coroutine[Any, Any, Response]],
    draining: asyncio.Event,
) -> AsyncIterator[Response]:
    """Yields the answer to each request as soon as it is there.

    A few requests are in flight at once; the next is read when an answer was taken, so that a slow reader and
    a full engine both hold the sender back. The first error ends the stream once what is in flight has been
    answered; so does draining, with Draining. Closing the generator cancels what is in flight.
    """
    ended: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue()
    room = asyncio.Semaphore(_CHUNKS_IN_FLIGHT)
    tasks: set[asyncio.Task[Response]] = set()
    reader = asyncio.create_task(_read(requests, answer, room, tasks, ended))
    reader.add_done_callback(lambda _: ended.put_nowait(None))
    stopper = asyncio.create_task(draining.wait())
    stopper.add_done_callback(lambda _: reader.cancel())
    fault: BaseException | None = None
    try:
        while tasks or not reader.done():
            task = await ended.get()
            if task is None:
                continue
            tasks.discard(task)
            if task.exception() is None:
                yield task.result()
            else:
                fault = fault or task.exception()
                reader.cancel()
            room.release()
    finally:
        await _cancel(reader, stopper, *tasks)
    if not reader.cancelled():
        reader.result()
    if fault is not None:
        raise fault
    if draining.is_set():
        raise Draining("The server is stopping. Send what was not answered to another, or again in a while.")


async def _read(
    requests: AsyncIterable[Request],
    answer: Callable[[Request], Coroutine[Any, Any, Response]],
    room: asyncio.Semaphore,
    tasks: set[asyncio.Task[Response]],
    ended: asyncio.Queue[asyncio.Task[Response] | None],
) -> None:
    await room.acquire()
    async for request in requests:
        task = asyncio.create_task(answer(request))
        tasks.add(task)
        task.add_done_callback(ended.put_nowait)
        await room.acquire()


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
