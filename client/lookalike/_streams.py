"""A bulk stream of the blocking client: fed from the caller's own thread, opened again when it breaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import grpc

from lookalike import _shared
from lookalike._bulk import Chunk, Window

OpenCall = Callable[..., Any]
"""Takes the requests and `timeout`, seconds or None."""
MakeRequest = Callable[[Chunk[Any]], Any]


def exchange(
    open_call: OpenCall,
    make_request: MakeRequest,
    chunks: Iterator[Chunk[Any]],
    target: str,
    timeout: float | None,
) -> Iterator[tuple[Chunk[Any], Any]]:
    """Sends all chunks and yields each with its answer, in order.

    When the stream breaks for a passing reason, what was not answered is sent again on a new one: the server
    treats a repeated chunk as it treated the first. Raises the stream's error when patience is at its end,
    DeadlineExceeded when `timeout`, in seconds over all attempts, is.
    """
    window: Window[Any, Any] = Window(chunks)
    patience = _shared.Patience(timeout)
    while True:
        try:
            yield from _one_stream(open_call, make_request, window, patience)
            return
        except grpc.RpcError as broken:
            error = _shared.error_of(broken, target)
        except EndedEarly:
            error = _shared.ended_early(target)
        pause = patience.pause(error)
        if pause is None:
            raise error
        time.sleep(pause)


class EndedEarly(Exception):
    """The server said OK before it had answered all chunks."""


def _one_stream(
    open_call: OpenCall, make_request: MakeRequest, window: Window[Any, Any], patience: _shared.Patience
) -> Iterator[tuple[Chunk[Any], Any]]:
    # gRPC reads requests in a thread of its own. It gets them from a queue, so that the caller's generator
    # runs, and raises, where the caller expects it.
    outbox: SimpleQueue[Any] = SimpleQueue()
    call = open_call(iter(outbox.get, None), timeout=patience.left())
    try:
        for chunk in window.unanswered():
            outbox.put(make_request(chunk))
        while True:
            while (taken := window.take()) is not None:
                outbox.put(make_request(taken))
            if window.all_taken:
                outbox.put(None)
            yield from window.answered()
            if not window:
                if window.all_taken:
                    return
                continue
            response = next(call, None)
            if response is None:
                raise EndedEarly
            window.answer(response.chunk_id, response)
            patience.progressed()
    finally:
        outbox.put(None)
        call.cancel()
