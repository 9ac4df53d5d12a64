"""Searches of callers who come at the same time, as one batch.

A scan of a collection is bound by memory: eight queries in one matrix product take hardly longer than one
alone. There is no timer: while a thread is free a search begins at once, and while all are busy those that
wait gather.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lookalike_server.answers import Ask, SearchResult
from lookalike_server.collection import Collection
from lookalike_server.services.spaces import in_thread

_MOST_QUERIES = 256

# Searches that may share a batch: those that ask a collection for the same.
_Kind = tuple[Collection, Ask]


@dataclass(frozen=True)
class _Waiting:
    """A caller: queries float32 [q, d], an id to leave out for each, and where the answer goes."""

    queries: NDArray[np.float32]
    exclude: Sequence[str]
    answer: asyncio.Future[SearchResult]


class Together:
    """Gathers searches. It belongs to one event loop.

    Args:
        workers: threads that search, shared with other blocking work.
        threads: searches at once; None means one for each core.
    """

    def __init__(self, workers: Executor, threads: int | None = None) -> None:
        self._workers = workers
        self._free = threads or os.cpu_count() or 1
        self._waiting: dict[_Kind, list[_Waiting]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def search(
        self,
        collection: Collection,
        queries: NDArray[np.float32],
        ask: Ask,
        *,
        exclude: Sequence[str],
    ) -> SearchResult:
        """As Collection.ask, whose errors it raises; `exclude` holds an id, or "", for each query."""
        waiting = _Waiting(queries, exclude, asyncio.get_running_loop().create_future())
        self._waiting.setdefault((collection, ask), []).append(waiting)
        if self._free:
            self._begin()
        return await waiting.answer

    def _begin(self) -> None:
        """Takes the kind that has waited longest."""
        kind = next(iter(self._waiting))
        line, count = self._waiting.pop(kind), 0
        batch: list[_Waiting] = []
        while line and (not batch or count + len(line[0].queries) <= _MOST_QUERIES):
            count += len(line[0].queries)
            batch.append(line.pop(0))
        if line:
            self._waiting[kind] = line
        self._free -= 1
        task = asyncio.create_task(self._run(kind, [w for w in batch if not w.answer.done()]))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._free += 1
        if self._waiting:
            self._begin()

    async def _run(self, kind: _Kind, batch: Sequence[_Waiting]) -> None:
        if not batch:
            return
        collection, ask = kind
        try:
            result = await in_thread(
                self._workers,
                collection.ask,
                np.concatenate([waiting.queries for waiting in batch]),
                ask,
                [item_id for waiting in batch for item_id in waiting.exclude],
            )
        except Exception as error:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        end = 0
        for waiting in batch:
            begin, end = end, end + len(waiting.queries)
            if not waiting.answer.done():
                own = replace(result, hits=result.hits[begin:end], more=result.more[begin:end])
                waiting.answer.set_result(own)
