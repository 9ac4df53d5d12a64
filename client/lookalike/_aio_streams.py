"""A bulk stream of the asynchronous client: the twin of _streams.py."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc

from lookalike import _shared
from lookalike._bulk import IN_FLIGHT, Chunk, Window
from lookalike._streams import EndedEarly, MakeRequest, OpenCall


async def exchange(
    open_call: OpenCall,
    make_request: MakeRequest,
    chunks: Iterator[Chunk[Any]],
    target: str,
    timeout: float | None,
) -> AsyncIterator[tuple[Chunk[Any], Any]]:
    """Sends all chunks and yields each with its answer, in order; see the twin.

    `chunks` are taken in a thread, because they read files.
    """
    window: Window[Any, Any] = Window(chunks)
    patience = _shared.Patience(timeout)
    while True:
        try:
            async for answered in _one_stream(open_call, make_request, window, patience):
                yield answered
            return
        except grpc.RpcError as broken:
            error = _shared.error_of(broken, target)
        except EndedEarly:
            error = _shared.ended_early(target)
        pause = patience.pause(error)
        if pause is None:
            raise error
        await asyncio.sleep(pause)


async def _one_stream(
    open_call: OpenCall, make_request: MakeRequest, window: Window[Any, Any], patience: _shared.Patience
) -> AsyncIterator[tuple[Chunk[Any], Any]]:
    outbox: asyncio.Queue[Any] = asyncio.Queue()
    call = open_call(_drained(outbox), timeout=patience.left())
    again = deque(window.unanswered())
    accepted = False
    try:
        while True:
            # gRPC forgets why a stream ended when it is writing at that moment. So the first chunk goes
            # alone: a stream that is refused as a whole is refused at its first chunk.
            room = len(again) + IN_FLIGHT if accepted else 1
            for _ in range(room):
                chunk = again.popleft() if again else await asyncio.to_thread(window.take)
                if chunk is None:
                    break
                outbox.put_nowait(make_request(chunk))
            if window.all_taken and not again:
                outbox.put_nowait(None)
            for answered in window.answered():
                yield answered
            if not window:
                if window.all_taken:
                    return
                continue
            response = await call.read()
            if response is grpc.aio.EOF:
                raise EndedEarly
            window.answer(response.chunk_id, response)
            patience.progressed()
            accepted = True
    finally:
        outbox.put_nowait(None)
        call.cancel()


async def _drained(outbox: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    while (request := await outbox.get()) is not None:
        yield request
