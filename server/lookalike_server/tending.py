"""What goes on with a collection by itself: parts of the view become files, many items get an index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from lookalike_server.approximate import Approximate
from lookalike_server.current import Current
from lookalike_server.indexer import Indexer
from lookalike_server.rows import Written
from lookalike_server.schema import Segment
from lookalike_server.segments import Keeper, Rewrite
from lookalike_server.view import View
from lookalike_server.writer import Apply


class Tending:
    """The threads that do it.

    Args:
        current: the state of the collection.
        submit: begins a write of theirs.
        documents: reads a document of the store.
    """

    def __init__(
        self,
        current: Current,
        submit: Callable[[Apply], Future[Written]],
        documents: Callable[[str], str | None],
    ) -> None:
        self._current = current
        self._submit = submit
        self._keeper = Keeper(current.segments, lambda: current.view, self._publish_rewrite)
        self.indexer = Indexer(
            current.folder / "indexes",
            lambda: current.view,
            documents,
            self._publish_indexes,
            self._keep_document,
        )
        self._keeper.wake()
        self.indexer.wake()

    def written(self, view: View) -> None:
        """Tells of a write, after which the view is this."""
        if len(view.parts) > 1:
            self._keeper.wake()
        self.indexer.notice(view)

    def close(self) -> None:
        """Returns when what is under way has ended."""
        self.indexer.close()
        self._keeper.close()

    def _publish_rewrite(self, rewrite: Rewrite) -> Sequence[Segment]:
        self._submit(partial(self._current.rewrite, rewrite)).result()
        self.indexer.wake()
        with self._current.store.reading() as reader:
            return reader.segments()

    def _publish_indexes(self, indexes: Sequence[Approximate], listed: str) -> None:
        self._submit(partial(self._current.replace_indexes, indexes, listed)).result()

    def _keep_document(self, name: str, value: str) -> None:
        self._submit(lambda writing: writing.set_document(name, value)).result()
