"""The thread that writes a collection: all that waits is one transaction, with one wait for the disk."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from lookalike_server.rows import Written
from lookalike_server.writing import Writing

# One transaction takes up to this many changes (calls, not items) from the line.
_MOST_CHANGES = 256

Apply = Callable[[Writing], Written]


@dataclass(frozen=True)
class Change:
    """A write on its way: what to do in the transaction, and who waits for it."""

    apply: Apply
    done: Future[Written]
    ids: Sequence[str] = ()
    """Whose rows it looks for."""
    frees: bool = False
    """Whether it leaves less than there was: taken even when the disk is full."""


class Writer:
    """Takes changes in the order they are put.

    Args:
        name: of the thread.
        commit: writes changes as one transaction and returns what each did; called in the thread.
        idle: called in the thread after each group of changes.
    """

    def __init__(
        self, name: str, commit: Callable[[Sequence[Change]], Sequence[Written]], idle: Callable[[], None]
    ) -> None:
        self._commit = commit
        self._idle = idle
        self._line: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._stage, name=name, daemon=True)
        self._thread.start()

    def put(self, apply: Apply, ids: Sequence[str] = (), *, frees: bool = False) -> Future[Written]:
        change = Change(apply, Future(), ids, frees)
        self._line.put(change)
        return change.done

    def end(self) -> None:
        """Takes nothing any more after what was put so far."""
        self._line.put(None)

    def join(self) -> None:
        self._thread.join()

    def _stage(self) -> None:
        ended = False
        while not ended:
            group = [self._line.get()]
            while not self._line.empty() and len(group) < _MOST_CHANGES:
                group.append(self._line.get())
            ended = None in group
            changes = [c for c in group if c is not None and c.done.set_running_or_notify_cancel()]
            if changes:
                self._write(changes)
                self._idle()

    def _write(self, changes: Sequence[Change]) -> None:
        try:
            results = self._commit(changes)
        except Exception as error:
            if len(changes) == 1:
                changes[0].done.set_exception(error)
                return
            for change in changes:  # One's fault must not become everybody's.
                self._write([change])
        else:
            for change, result in zip(changes, results, strict=True):
                change.done.set_result(result)
