"""A coroutine that serves, in an event loop and a thread of its own, while a block runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

Served = TypeVar("Served")
Ready = Callable[[Served, Callable[[], None]], None]
"""Told what is served, and what ends it: that is called in the loop."""


@contextmanager
def looping(main: Callable[[Ready[Served]], Coroutine[Any, Any, None]]) -> Iterator[Served]:
    """Yields what `main` calls `ready` with, ends it afterwards and waits until it has ended.

    Raises what `main` raises before it is ready.
    """
    told: Future[tuple[Served, Callable[[], None]]] = Future()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        try:
            await main(lambda served, end: told.set_result((served, lambda: loop.call_soon_threadsafe(end))))
        except BaseException as error:
            if told.done():
                raise
            told.set_exception(error)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    served, end = told.result(60)
    try:
        yield served
    finally:
        with suppress(RuntimeError):  # its loop has ended
            end()
        thread.join(60)
        assert not thread.is_alive()
