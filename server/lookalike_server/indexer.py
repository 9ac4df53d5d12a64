"""The thread that makes approximate indexes.

The store's document "indexes" lists their files (index_files.py); "index" holds the settings, "refused" what
"auto" need not try again.

Indexes grow as the collection does: rows that no index covers are added to a copy of the last index, or,
where they are less than a fifth of it, become one of their own. An index takes in those after it once they
have a fifth of its rows: so a row is added a few times only, and indexes stay few. One that holds many
deleted rows is built anew.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss

from lookalike_server import building
from lookalike_server.approximate import Approximate, bare
from lookalike_server.building import IndexSettings, Stopped, build
from lookalike_server.caretaker import Caretaker
from lookalike_server.errors import StoreDamaged
from lookalike_server.index_files import read_index, remove_others, write_index
from lookalike_server.parts import Part
from lookalike_server.view import View

# Fewer rows than this are scanned.
LEAST_ROWS = 1_000
# An index takes in those after it once they have this share of its rows.
_TAKEN_IN = 0.2
_MOST_DEAD = 0.2
_PAUSE_SECONDS = 0.2
_NICE = 10

_log = logging.getLogger(__name__)


class Indexer:
    """Keeps the indexes of a collection as its settings ask.

    Args:
        folder: of the files.
        view: gives the view of the moment.
        documents: reads a document of the store.
        publish: puts indexes into the view, and their list into the store.
        keep: writes a document of the store.
    """

    def __init__(
        self,
        folder: Path,
        view: Callable[[], View],
        documents: Callable[[str], str | None],
        publish: Callable[[Sequence[Approximate], str], None],
        keep: Callable[[str, str], None],
    ) -> None:
        self._folder = folder
        self._view = view
        self._documents = documents
        self._publish = publish
        self._keep_document = keep
        self._entries: dict[Approximate, dict[str, Any]] = {}
        self._loaded = False
        self.building = False
        """Whether an index is being made."""
        # When it fails nothing is lost: what no index covers is scanned.
        trouble = f"an index could not be made in {folder}"
        self._thread = Caretaker(f"index-{folder.parent.name}", self._keep, trouble, niceness=_NICE)
        self.wake, self.close = self._thread.wake, self._thread.close

    def notice(self, view: View) -> None:
        """Wakes it when the view may hold enough rows for another index; called after each write."""
        indexed = view.indexes[-1].last if view.indexes else 0
        worth_it = view.indexes or view.count >= building.EXACT_BELOW
        if worth_it and view.sequence - indexed >= LEAST_ROWS:
            self.wake()

    def _keep(self) -> None:
        try:
            if not self._loaded:
                self._load()
                self._loaded = True
            while not self._thread.stopping() and self._step():
                pass
            if self._entries:
                time.sleep(_PAUSE_SECONDS)  # writes come faster than it pays to look at each
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
        tried = [settings.as_json(), view.count // building.EXACT_BELOW, faiss.__version__]
        refused = self._refused(tried)

        def factory(rows: int) -> str:
            if refused > 1:
                return ""
            return settings.factory(view.count, view.dimension, rows=rows, second=refused == 1)

        plan = planned(view, factory, settings.target_recall)
        if not plan.parts and plan.kept == view.indexes:
            return False
        self.building = True
        made = [self._made(plan, settings)] if plan.parts else []
        least = settings.target_recall - building.TOLERANCE
        if settings.kind == "auto" and any(one.recall < least for one in made):
            _log.warning(
                "%s finds %.3f of the nearest in %s, less than was asked for, and is not used",
                *(plan.factory, made[0].recall, self._folder.parent.name),
            )
            self._keep_document("refused", json.dumps({"tried": tried, "kinds": refused + 1}))
            return True
        kept = plan.kept
        self._entries |= {index: write_index(self._folder, index) for index in made}
        self._entries = {index: self._entries[index] for index in (*kept, *made)}
        self._publish([*self._entries], json.dumps([*self._entries.values()]))
        remove_others(self._folder, {entry["file"] for entry in self._entries.values()})
        return True

    def _refused(self, tried: list[object]) -> int:
        """How many choices of "auto" did not reach the target, of those tried like this."""
        try:
            told = json.loads(self._documents("refused") or "{}")
        except StoreDamaged:  # then they are tried again
            return 0
        return int(told["kinds"]) if told.get("tried") == tried else 0

    def _made(self, plan: Plan, settings: IndexSettings) -> Approximate:
        faiss.omp_set_num_threads(max(1, (os.cpu_count() or 1) // 2))

        def stopped() -> bool:
            return self._thread.stopping() or settings_of(self._documents) != settings

        return build(plan.parts, plan.factory, settings.target_recall, stopped, plan.base)


def settings_of(documents: Callable[[str], str | None]) -> IndexSettings:
    return IndexSettings(**json.loads(documents("index") or "{}"))


@dataclass(frozen=True)
class Plan:
    """Indexes that stay, and the rows of one more, if any; `base` is an index of the first of those rows."""

    kept: tuple[Approximate, ...]
    parts: tuple[Part, ...] = ()
    base: Approximate | None = None
    factory: str = ""


def planned(view: View, factory: Callable[[int], str], target: float) -> Plan:
    """Returns which index should be made next.

    factory: gives the factory string of an index of so many rows; "" for an exact scan.
    """
    if not factory(view.count):
        return Plan(())
    kept = [one for one in view.indexes if one.target == target and one.factory == factory(len(one.keys))]
    kept = [one for one in kept if _dead_share(view, one) <= _MOST_DEAD]
    if _living(bare(view.parts, kept)) < LEAST_ROWS:
        return Plan(tuple(kept))
    gap = next(part for part in bare(view.parts, kept) if part.living)
    kept = [one for one in kept if one.last < gap.keys[0]]  # rows are added behind those of an index only
    rows = _living(bare(view.parts, kept))
    base = None
    while kept and rows >= _TAKEN_IN * len(kept[-1].keys):
        base = kept.pop()
        rows += len(base.keys)
    last = kept[-1].last if kept else -1
    parts = tuple(p for p in bare(view.parts, kept) if p.keys[0] > last)
    if base is None or base.factory != factory(rows):
        base, rows = None, _living(parts)
    return Plan(tuple(kept), parts, base, factory(rows))


def _living(parts: Sequence[Part]) -> int:
    return sum(part.living for part in parts)


def _dead_share(view: View, index: Approximate) -> float:
    living = sum(part.between(index.first, index.last).living for part in view.parts)
    return 1 - min(1.0, living / len(index.keys))
