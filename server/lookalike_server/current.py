"""Store and view of a collection, kept in step: a write is in both or in neither.

A commit is published at once, under a lock; readers take no lock, and take it only in the moment between the
two.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from lookalike_server.parts import Vectors
from lookalike_server.reader import Reader
from lookalike_server.rows import Written
from lookalike_server.segments import Rewrite, open_view
from lookalike_server.store import Store
from lookalike_server.view import View
from lookalike_server.writer import Change
from lookalike_server.writing import Writing


class Current:
    """The state of a collection. Opening it reads it. One thread commits, any thread reads."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
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

    def commit(self, changes: Sequence[Change]) -> tuple[Sequence[Written], int]:
        """Writes the changes as one transaction; returns what each did, and about how many bytes all take."""
        self._rewrites.clear()
        with self.store.writing() as writing:
            results = [change.apply(writing) for change in changes]
            if not writing.changed:
                return results, 0
            view, vectors = self.view, self._added(writing)
            for rewrite in self._rewrites:
                view = rewrite(view)
            keys = np.fromiter(writing.added, np.int64, len(writing.added))
            view = view.changed(writing.sequence, keys, vectors, writing.removed)
            with self._publishing:
                writing.commit()
                self.view = view
                self._notify()
        return results, vectors.nbytes + (len(changes) << 16)

    def rewrite(self, rewrite: Rewrite, writing: Writing) -> Written:
        """A change: puts a segment in place of parts."""
        part = rewrite.part
        keys = np.empty(0, np.int64) if part is None else part.keys
        alive = writing.replace_segments(*rewrite.bounds, rewrite.segment, keys)
        put = None if part is None else replace(part, alive=alive)
        self._rewrites.append(lambda view: view.rewritten(rewrite.run, put))
        return Written(writing.sequence)

    def _added(self, writing: Writing) -> Vectors:
        vectors = np.array([*writing.added.values()], np.float32)
        return vectors.reshape(len(writing.added), self.store.space.dimension)

    def _notify(self) -> None:
        for sequence, waiting in self._awaited:
            if sequence <= self.view.sequence and waiting.set_running_or_notify_cancel():
                waiting.set_result(None)
        self._awaited = [one for one in self._awaited if not one[1].done()]
