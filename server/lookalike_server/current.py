"""Store and view of a collection, kept in step: a write is in both or in neither.

A commit is published at once, under a lock; readers take no lock, and take it only in the moment between the
two.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from lookalike_server.approximate import Approximate
from lookalike_server.errors import DiskFull
from lookalike_server.parts import Vectors
from lookalike_server.reader import Reader
from lookalike_server.reserve import Reserve
from lookalike_server.rows import Written
from lookalike_server.segments import Rewrite, open_view
from lookalike_server.store import Store
from lookalike_server.view import View
from lookalike_server.writer import Change
from lookalike_server.writing import Writing

_SETTLE_BYTES = 32 << 20

_log = logging.getLogger(__name__)


class Current:
    """The state of a collection. Opening it reads it. One thread commits, any thread reads."""

    def __init__(self, path: Path, reserve: Reserve) -> None:
        self._reserve = reserve
        self._unsettled = 0
        self.store = Store(path)
        self.folder = path.parent
        self.segments = path.parent / "segments"
        try:
            with self.store.reading() as reader:
                self.view = open_view(self.segments, reader, self.store.space.dimension)
        except BaseException:
            self.store.close()
            raise
        self._publishing = threading.Lock()
        self._awaited: list[tuple[int, Future[None]]] = []
        self._rewrites: list[Callable[[View], View]] = []

    @contextmanager
    def state(self) -> Iterator[tuple[Reader, View]]:
        """Gives store and view after one and the same write."""
        with ExitStack() as stack:
            reader, view = stack.enter_context(self.store.reading()), self.view
            if view.sequence != reader.sequence:  # between a commit and its publication
                stack.close()
                with self._publishing:
                    reader, view = stack.enter_context(self.store.reading()), self.view
            yield reader, view

    def reached(self, sequence: int) -> Future[None]:
        """Returns a future that is done once searches see that write."""
        waiting: Future[None] = Future()
        with self._publishing:
            if self.view.sequence >= sequence:
                waiting.set_result(None)
            else:
                self._awaited.append((sequence, waiting))
        return waiting

    def commit(self, changes: Sequence[Change]) -> Sequence[Written]:
        """Writes the changes as one transaction, and returns what each did.

        On a full disk changes that free space get what is kept for them; others raise DiskFull.
        """
        frees = all(change.frees for change in changes)
        if self._reserve.spent and not frees and not self._reserve.fill():
            raise DiskFull(f"The disk of {self.folder} is full; items can be deleted and read.")
        try:
            return self._commit(changes)
        except DiskFull:
            if not frees:
                raise
            self._reserve.spend()
            self.settle()
            return self._commit(changes)

    def settle(self) -> None:
        """Empties the log, when it has grown."""
        if self._unsettled <= _SETTLE_BYTES and not self._reserve.spent:
            return
        self._unsettled = 0
        try:
            self.store.settle(shrink=self._reserve.spent)
        except Exception:
            # What was written is safe in the log; the next time may go better.
            _log.warning("the log of %s could not be moved into its file", self.folder, exc_info=True)

    def _commit(self, changes: Sequence[Change]) -> Sequence[Written]:
        self._rewrites.clear()
        with self.store.writing() as writing:
            writing.look_up([item_id for change in changes for item_id in change.ids])
            results = [change.apply(writing) for change in changes]
            if not writing.changed:
                return results
            writing.write_out()
            view, vectors = self.view, self._added(writing)
            for rewrite in self._rewrites:
                view = rewrite(view)
            keys = np.fromiter(writing.added, np.int64, len(writing.added))
            view = view.changed(writing.sequence, keys, vectors, writing.removed)
            with self._publishing:
                writing.commit()
                self.view = view
                self._notify()
        self._unsettled += vectors.nbytes + (len(changes) << 16)
        return results

    def rewrite(self, rewrite: Rewrite, writing: Writing) -> Written:
        """A change: puts a segment in place of parts."""
        part = rewrite.part
        keys = np.empty(0, np.int64) if part is None else part.keys
        alive = writing.replace_segments(*rewrite.bounds, rewrite.segment, keys)
        put = None if part is None else replace(part, alive=alive)
        self._rewrites.append(lambda view: view.rewritten(rewrite.run, put))
        return Written(writing.sequence)

    def replace_indexes(self, indexes: Sequence[Approximate], listed: str, writing: Writing) -> Written:
        """A change: puts these indexes in place of all others; `listed` is the store's list of them."""
        self._rewrites.append(lambda view: view.indexed(indexes))
        return writing.set_document("indexes", listed)

    def _added(self, writing: Writing) -> Vectors:
        vectors = np.array([*writing.added.values()], np.float32)
        return vectors.reshape(len(writing.added), self.store.space.dimension)

    def _notify(self) -> None:
        for sequence, waiting in self._awaited:
            if sequence <= self.view.sequence and waiting.set_running_or_notify_cancel():
                waiting.set_result(None)
        self._awaited = [one for one in self._awaited if not one[1].done()]
