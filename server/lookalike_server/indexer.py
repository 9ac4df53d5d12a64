"""The thread that makes approximate indexes, and their files.

    <data>/<collection>/indexes/<first>-<last>-<count>     keys and runs, then FAISS's own format

An index is a copy, as segments are: a file that is missing or not what was written is made anew, and until an
index is there its rows are scanned. The store's document "indexes" lists the files with checksums, tuning and
measured recall; "index" holds the settings.

Indexes grow as the collection does: rows that no index covers become a new one, which takes in those before
it that are smaller than twice its size. So a row is indexed again a few times only, and indexes stay few.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from lookalike_server.approximate import Approximate, Effort
from lookalike_server.building import EXACT_BELOW, IndexSettings, Stopped, build, size_of
from lookalike_server.caretaker import Caretaker
from lookalike_server.parts import Part
from lookalike_server.schema import sync_folder
from lookalike_server.view import View

# Fewer rows than this are not worth an index of their own.
LEAST_ROWS = 25_000
_MOST_DEAD = 0.2
_NICE = 10

_log = logging.getLogger(__name__)


class Indexer:
    """Keeps the indexes of a collection as its settings ask.

    Args:
        folder: of the files.
        view: gives the view of the moment.
        documents: reads a document of the store.
        publish: puts indexes into the view, and their list into the store.
    """

    def __init__(
        self,
        folder: Path,
        view: Callable[[], View],
        documents: Callable[[str], str | None],
        publish: Callable[[Sequence[Approximate], str], None],
    ) -> None:
        self._folder = folder
        self._view = view
        self._documents = documents
        self._publish = publish
        self._refused: tuple[str, int] | None = None
        self._entries: dict[Approximate, dict[str, Any]] = {}
        self._loaded = False
        self.building = False
        """Whether an index is being made."""
        # When it fails nothing is lost: what no index covers is scanned.
        trouble = f"an index could not be made in {folder}"
        self._thread = Caretaker(f"index-{folder.parent.name}", self._keep, trouble, niceness=_NICE)
        self.wake, self.close = self._thread.wake, self._thread.close

    def _keep(self) -> None:
        try:
            if not self._loaded:
                self._load()
                self._loaded = True
            while not self._thread.stopping() and self._step():
                pass
        except Stopped:
            pass
        finally:
            self.building = False

    def _load(self) -> None:
        for entry in json.loads(self._documents("indexes") or "[]"):
            index = read_index(self._folder, entry)
            if index is not None:
                self._entries[index] = entry
        if self._entries:
            self._publish([*self._entries], json.dumps([*self._entries.values()]))

    def _step(self) -> bool:
        """Makes one index where one is wanting; returns whether it did."""
        view, settings = self._view(), settings_of(self._documents)
        factory = settings.factory(view.count, view.dimension)
        if self._refused == (settings.as_json(), view.count // EXACT_BELOW):
            return False
        kept, run = next_build(view, factory, settings.target_recall)
        if not run and kept == view.indexes:
            return False
        self.building = True
        made = [self._made(run, factory, settings)] if run else []
        if settings.kind == "auto" and any(one.recall < settings.target_recall - 0.01 for one in made):
            _log.warning(
                "%s finds %.3f of the nearest in %s, less than was asked for: searches stay exact",
                *(factory, made[0].recall, self._folder.parent.name),
            )
            self._refused = (settings.as_json(), view.count // EXACT_BELOW)
            kept, made = (), []
        self._entries |= {index: write_index(self._folder, index) for index in made}
        self._entries = {index: self._entries[index] for index in (*kept, *made)}
        self._publish([*self._entries], json.dumps([*self._entries.values()]))
        remove_others(self._folder, {entry["file"] for entry in self._entries.values()})
        return True

    def _made(self, run: Sequence[Part], factory: str, settings: IndexSettings) -> Approximate:
        faiss.omp_set_num_threads(max(1, (os.cpu_count() or 1) // 2))
        keys = np.concatenate([part.keys[: part.count][part.alive] for part in run])
        vectors = np.concatenate([part.vectors[: part.count][part.alive] for part in run])
        return build(keys, vectors, factory, settings.target_recall, self._thread.stopping)


def settings_of(documents: Callable[[str], str | None]) -> IndexSettings:
    return IndexSettings(**json.loads(documents("index") or "{}"))


def next_build(view: View, factory: str, target: float) -> tuple[tuple[Approximate, ...], tuple[Part, ...]]:
    """Returns the indexes to keep, and the parts to make one more of; () when none is wanting."""
    if not factory:
        return (), ()
    kept = [one for one in view.indexes if one.factory == factory and one.target == target]
    kept = [one for one in kept if _dead_share(view, one) <= _MOST_DEAD]
    sealed = [part for part in view.parts if part.sealed and part.living]
    bare = [part for part in sealed if not _covers(kept, part)]
    rows = sum(part.living for part in bare)
    if rows < LEAST_ROWS:
        return tuple(kept), ()
    while kept and len(kept[-1].keys) < 2 * rows:
        rows += len(kept.pop().keys)
    first = kept[-1].last if kept else 0
    return tuple(kept), tuple(part for part in sealed if part.keys[0] > first and not _covers(kept, part))


def _covers(indexes: Sequence[Approximate], part: Part) -> bool:
    return any(one.first <= part.keys[0] and part.keys[part.count - 1] <= one.last for one in indexes)


def _dead_share(view: View, index: Approximate) -> float:
    within = [p for p in view.parts if p.keys[0] <= index.last and p.keys[p.count - 1] >= index.first]
    return 1 - min(1.0, sum(part.living for part in within) / len(index.keys))


def file_name(index: Approximate) -> str:
    return f"{index.first}-{index.last}-{len(index.keys)}"


def write_index(folder: Path, index: Approximate) -> dict[str, Any]:
    """Puts an index on disk, where it is not there yet, and returns its entry in the list."""
    path = folder / file_name(index)
    data = [index.keys.astype("<i8").tobytes(), index.starts.astype("<i8").tobytes()]
    data.append(faiss.serialize_index(index.index).tobytes())
    entry = {
        "file": path.name,
        "factory": index.factory,
        "recall": index.recall,
        "target": index.target,
        "count": len(index.keys),
        "runs": len(index.starts),
        "effort": asdict(index.effort),
        "crc": zlib.crc32(b"".join(data)),
    }
    folder.mkdir(exist_ok=True)
    draft = folder / "draft"
    with draft.open("wb") as file:
        for piece in data:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync_folder(folder)
    return entry


def read_index(folder: Path, entry: dict[str, Any]) -> Approximate | None:
    """Returns the index of an entry, or None when its file is not what was written."""
    try:
        data = (folder / entry["file"]).read_bytes()
    except OSError:
        data = b""
    if zlib.crc32(data) != entry["crc"] or not data:
        _log.warning("%s is damaged or missing; it is made anew", folder / entry["file"])
        return None
    keys, runs = 8 * entry["count"], 8 * entry["runs"]
    index = faiss.deserialize_index(np.frombuffer(data, np.uint8, offset=keys + runs))
    starts = np.frombuffer(data, "<i8", entry["runs"], keys)
    return Approximate(
        index,
        np.frombuffer(data, "<i8", entry["count"]).copy(),
        starts.copy(),
        entry["factory"],
        Effort(**entry["effort"]),
        entry["recall"],
        entry["target"],
        size_of(index) + keys + runs,
    )


def remove_others(folder: Path, known: set[str]) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in known:
            path.unlink(missing_ok=True)
