"""A collection: the store is the truth, the view is what searches look at, one thread writes both.

    upsert, delete - queue - writer thread: all that waits, one transaction - new view - acknowledged
    search         - view - rows of the hits from the store
    get, list      - store
    in between     - keeper thread: full parts of the view become files, for a quick start (segments.py)

Acknowledged is what is on disk and searches see. Reads see store and view as they were after one write.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from lookalike_extractor.errors import LookalikeError
from numpy.typing import NDArray

from lookalike_server.answers import Ask, SearchResult, Snapshot
from lookalike_server.attributes import checked_paths
from lookalike_server.building import EXACT_BELOW, IndexSettings
from lookalike_server.current import Current
from lookalike_server.errors import DescriptorInvalid, Draining
from lookalike_server.filters import parse_filter
from lookalike_server.gate import Gate
from lookalike_server.reader import Reader
from lookalike_server.recall_probe import RecallProbe
from lookalike_server.reserve import Reserve
from lookalike_server.rows import Descriptor, NewRow, Row, Written, check_different, check_id, units
from lookalike_server.searching import Searcher
from lookalike_server.status import IndexStatus, index_status
from lookalike_server.tending import Tending
from lookalike_server.upkeep import Verified, back_up, verified
from lookalike_server.view import View
from lookalike_server.writer import Apply, Change, Writer
from lookalike_server.writing import Writing


class Collection:
    """A named set of items with descriptors of one space. Any thread may call it; calls block.

    Opening it reads all vectors. Raises StoreDamaged, StoreTooNew or StoreUnusable.

    Args:
        path: of the store.
        reserve: disk for deletions when there is no other.
    """

    def __init__(self, path: Path, reserve: Reserve) -> None:
        self._current = Current(path, reserve)
        store = self._current.store
        self.name, self.space, self.created = store.name, store.space, store.created
        self._gate = Gate()
        self._searcher = Searcher(self.state, lambda: self._view)
        self._writer = Writer(f"write-{self.name}", self._commit, self._current.settle)
        self._tending = Tending(self._current, self._submit, self.get_document)

    @property
    def _view(self) -> View:
        return self._current.view

    @property
    def count(self) -> int:
        return self._view.count

    @property
    def sequence(self) -> int:
        return self._view.sequence

    def close(self, reason: LookalikeError | None = None) -> None:
        """Ends what is under way, then refuses every call with `reason`."""
        self._tending.close()
        stopping = Draining(f"Collection {self.name!r} is closed; the server is stopping.")
        if self._gate.close(reason or stopping):
            self._writer.end()
            self._writer.join()
            self._gate.wait_empty()
            self._current.store.close()

    def upsert(self, rows: Sequence[NewRow]) -> Written:
        """Inserts the rows, or replaces those whose ids are there: all or, when it raises, none."""
        return self.submit_upsert(rows).result()

    def submit_upsert(self, rows: Sequence[NewRow]) -> Future[Written]:
        """Begins an upsert. A future that is cancelled before the write begins leaves nothing behind.

        Raises ArgumentInvalid when an id comes twice, DescriptorInvalid when a dimension is wrong.
        """
        for i, row in enumerate(rows):
            self.check_dimension(row.descriptor, f"items[{i}].descriptor")
        check_different(rows)
        return self._submit(lambda writing: writing.upsert(rows), [row.id for row in rows])

    def submit_upsert_if(self, row: NewRow, wanted: Callable[[View, Writing], bool]) -> Future[Written]:
        """Begins an upsert that is done only if `wanted` says so when its turn has come.

        wanted: called in the thread that writes, with the view before the transaction and what the
        transaction has changed so far. It must be quick: all other writes wait.
        """
        self.check_dimension(row.descriptor, "descriptor")

        def apply(writing: Writing) -> Written:
            return writing.upsert([row] if wanted(self._view, writing) else [])

        return self._submit(apply)

    def delete(self, ids: Sequence[str]) -> Written:
        """Deletes the items of those ids that are there."""
        return self.submit_delete(ids).result()

    def submit_delete(self, ids: Sequence[str]) -> Future[Written]:
        for item_id in ids:
            check_id(item_id)
        return self._submit(lambda writing: writing.delete(ids), ids, frees=True)

    def get(self, ids: Sequence[str], *, descriptors: bool = False) -> dict[str, Row]:
        """Returns those items that are there, by id."""
        for item_id in ids:
            check_id(item_id)
        with self.state() as (reader, _):
            return reader.by_id(ids, descriptors=descriptors)

    def list(self, after: int, limit: int, where: str = "", *, descriptors: bool = False) -> list[Row]:
        """Returns the next items that fit after that sequence number, in the order of their last write."""
        condition = parse_filter(where)
        with self.state() as (reader, _):
            return reader.page(after, limit, condition, descriptors=descriptors)

    def search(
        self,
        descriptors: NDArray[np.float32],
        k: int,
        *,
        min_score: float | None = None,
        where: str = "",
        exclude: Sequence[str] | None = None,
    ) -> SearchResult:
        """Finds the k nearest of all items that fit, exactly; items of equal score in the order of their ids.

        Args:
            descriptors: float32 [q, d], the queries; they are scaled to length 1.
            exclude: an id for each query that is not to be among its hits; "" for none. Others: see `Ask`.
        """
        return self.ask(descriptors, Ask(k, where, min_score, exact=True), exclude)

    def ask(
        self, descriptors: NDArray[np.float32], ask: Ask, exclude: Sequence[str] | None = None
    ) -> SearchResult:
        """As `search`, with all that can be asked for."""
        for query in descriptors:
            self.check_dimension(query, "descriptor")
        queries = units(np.asarray(descriptors).reshape(-1, self.space.dimension))
        with self._gate:
            return self._searcher.search(queries, ask, exclude or [""] * len(queries))

    def reached(self, sequence: int) -> Future[None]:
        """Returns a future that is done once searches see that write."""
        return self._current.reached(sequence)

    def snapshot(self, where: str = "", *, reference: str = "") -> Snapshot:
        """Returns all items that fit, as they are now, with their descriptors float32 [n, d].

        reference: a second filter; the snapshot says which of the items fit it too. "" means none.
        """
        condition, other = parse_filter(where), parse_filter(reference)
        with self.state() as (reader, view):
            rows = reader.page(0, -1, condition)
            keys, vectors = view.snapshot(self._searcher.wanted(reader, condition))
            fitting = reader.keys(other) if reference else keys[:0]
        return Snapshot.of(view.sequence, keys, rows, vectors, np.isin(keys, fitting))

    def configure_index(self, settings: IndexSettings) -> None:
        """Chooses the index; it is made in the background, and searches go on with what there was."""
        settings.factory(max(self.count, EXACT_BELOW), self.space.dimension)
        self.set_document("index", settings.as_json())
        self._tending.indexer.wake()

    def index_status(self) -> IndexStatus:
        """Returns what index there is, how good it is and what it takes."""
        with self.state() as (reader, view):
            return index_status(view, reader, self._current.folder, self._tending.indexer)

    @property
    def recall_probe(self) -> RecallProbe | None:
        """None where searches are exact."""
        return self._searcher.probe if self._view.indexes else None

    def probe_recall(self) -> None:
        with self._gate:
            self._searcher.probe.take(self._view)

    def index_attributes(self, paths: Sequence[str]) -> None:
        """Makes and removes indexes on attributes until just these have one; other writes wait meanwhile.

        Raises ArgumentInvalid or FilterInvalid for what cannot be indexed.
        """
        self._submit(partial(Writing.index_attributes, paths=checked_paths(paths))).result()

    def verify(self) -> Verified:
        """Reads everything and compares all copies of it."""
        with self.state() as (reader, view):
            return verified(reader, view, self._current.segments)

    def back_up(self, path: Path) -> int:
        """Copies the collection, as it is now, to a new file; returns its sequence number."""
        with self._gate:
            return back_up(self._current.store, path)

    def set_document(self, name: str, value_json: str) -> None:
        """Keeps a small JSON text beside the items, in place of that of the same name; "" removes it.

        It is on disk when this returns. Raises ValueError when it is not JSON.
        """
        if value_json:
            json.loads(value_json)
        self._submit(lambda writing: writing.set_document(name, value_json)).result()

    def get_document(self, name: str) -> str | None:
        """Returns what was kept under that name, or None."""
        with self.state() as (reader, _):
            return reader.document(name)

    def check_dimension(self, descriptor: Descriptor, field: str) -> None:
        """Raises DescriptorInvalid unless the descriptor has this collection's dimension."""
        if descriptor.shape != (self.space.dimension,):
            raise DescriptorInvalid(
                f"{field} has shape {list(descriptor.shape)}; collection {self.name!r} takes "
                f"[{self.space.dimension}].",
                field=field,
            )

    @contextmanager
    def state(self) -> Iterator[tuple[Reader, View]]:
        """Gives store and view after one and the same write."""
        with self._gate, self._current.state() as state:
            yield state

    def _submit(self, apply: Apply, ids: Sequence[str] = (), *, frees: bool = False) -> Future[Written]:
        with self._gate.held():
            return self._writer.put(apply, ids, frees=frees)

    def _commit(self, changes: Sequence[Change]) -> Sequence[Written]:
        results = self._current.commit(changes)
        self._tending.written(self._view)
        return results
