"""Searches of a collection: from queries to hits.

    filter   keys of the items that fit, from the store      remembered until the next write
    scan     keys and scores, from the view
    rows     ids and attributes of what was found, from the store; those read lately are remembered
    choose   min_score, groups, pages; when too few are left the scan goes deeper

Store and view are read apart, so that a long scan holds no transaction. Where a hit was replaced meanwhile,
all of it happens again within one state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

from lookalike_server.answers import Account, Ask, Hit, SearchResult
from lookalike_server.choosing import Chosen, choose, members_of
from lookalike_server.filter_sql import Filter
from lookalike_server.filters import EVERYTHING, both, parse_filter
from lookalike_server.parts import Keys, Vectors
from lookalike_server.proposing import propose, worthwhile
from lookalike_server.reader import Reader
from lookalike_server.recall_probe import RecallProbe
from lookalike_server.remembered import Remembered
from lookalike_server.rows import Descriptor, Row
from lookalike_server.scan import Found
from lookalike_server.view import View

# Filters whose keys are remembered until the next write.
_MOST_FILTERS = 8
_DEEPER = 4

States = Callable[[], AbstractContextManager[tuple[Reader, View]]]
"""Gives store and view after one and the same write."""


class _Replaced(Exception):
    """A row that was found is no longer there."""


class Searcher:
    """Searches one collection. Any thread may call it; calls block."""

    def __init__(self, states: States, view: Callable[[], View]) -> None:
        self._states = states
        self._view = view
        self._remembered = Remembered()
        self.probe = RecallProbe()
        self._fitting: tuple[int, dict[Filter, Keys]] = (0, {})

    def search(self, queries: Vectors, ask: Ask, exclude: Sequence[str]) -> SearchResult:
        """Answers the queries float32 [q, d], of length 1; `exclude` holds an id, or "", for each."""
        begin = time.perf_counter()
        condition = parse_filter(ask.where)
        view, wanted = self._seen(condition)
        filtered = time.perf_counter() - begin
        try:
            run = _Run(self, view, None, queries, ask, wanted)
            chosen = run.answer(exclude)
        except _Replaced:
            with self._states() as (reader, view):
                run = _Run(self, view, reader, queries, ask, self.wanted(reader, condition))
                try:
                    chosen = run.answer(exclude)
                except _Replaced:
                    raise reader.damaged("its items, which are others than those searched") from None
        account = run.account(filtered)
        return SearchResult(view.sequence, [c.hits for c in chosen], [c.more for c in chosen], account)

    def _seen(self, condition: Filter) -> tuple[View, Keys | None]:
        """Returns the state to search and the keys that fit in it; None for all."""
        if condition == EVERYTHING:
            return self._view(), None
        with self._states() as (reader, view):
            return view, self.wanted(reader, condition)

    def wanted(self, reader: Reader, condition: Filter) -> Keys | None:
        """Returns the keys that fit, ascending; None for all. A filter that comes again is not read again."""
        if condition == EVERYTHING:
            return None
        sequence, known = self._fitting
        if sequence != reader.sequence:
            known = {}
            self._fitting = (reader.sequence, known)
        keys = known.get(condition)
        if keys is None:
            keys = reader.keys(condition)
            if len(known) < _MOST_FILTERS:
                known[condition] = keys
        return keys

    def rows(self, keys: Set[int], reader: Reader | None) -> dict[int, Row]:
        """Returns the rows of those keys, read in the state of `reader` or of now. Raises _Replaced."""
        rows = self._remembered.get(keys)
        if len(rows) < len(keys):
            read = self._read([key for key in keys if key not in rows], reader)
            for row in read.values():
                self._remembered.put(row)
            rows |= read
        return rows

    def _read(self, keys: list[int], reader: Reader | None) -> dict[int, Row]:
        if reader is None:
            with self._states() as (now, _):
                return self._read(keys, now)
        rows = reader.by_key(keys)
        if len(rows) != len(keys):
            raise _Replaced
        return rows

    def keys(self, condition: Filter, reader: Reader | None, view: View) -> Keys:
        """Returns the keys that fit in the state of the view. Raises _Replaced."""
        if reader is not None:
            return reader.keys(condition)
        with self._states() as (now, _):
            if now.sequence != view.sequence:
                raise _Replaced
            return now.keys(condition)


@dataclass
class _Run:
    """One search. With a reader, all of it is in that state."""

    searcher: Searcher
    view: View
    reader: Reader | None
    queries: Vectors
    ask: Ask
    wanted: Keys | None
    scan_seconds: float = 0.0
    rows_seconds: float = 0.0

    def answer(self, exclude: Sequence[str]) -> list[Chosen]:
        if not self.ask.group_by or self.ask.group_size == 1:
            return self._deep_enough(self.queries, exclude, self.wanted, self.ask)
        leaders = self._deep_enough(self.queries, exclude, self.wanted, replace(self.ask, group_size=1))
        return [self._filled(*one) for one in zip(self.queries, exclude, leaders, strict=True)]

    @cached_property
    def through_index(self) -> bool:
        """Pages and groups must see everything to be in order."""
        plain = not (self.ask.exact or self.ask.every or self.ask.group_by or self.ask.after)
        return plain and worthwhile(self.view, self.wanted)

    def account(self, filter_seconds: float) -> Account:
        plan = "exact scan" if self.wanted is None else "exact scan of the items that fit"
        compared = self._most(self.wanted)
        if self.through_index:
            plan = self.view.plan
            compared = self.view.bare_count + sum(one.most(self.ask.k) for one in self.view.indexes)
        return Account(
            plan=plan,
            items=self.view.count,
            fitting=self._most(self.wanted),
            compared=compared,
            queries=len(self.queries),
            filter_seconds=filter_seconds,
            scan_seconds=self.scan_seconds,
            rows_seconds=self.rows_seconds,
        )

    def _most(self, wanted: Keys | None) -> int:
        return self.view.count if wanted is None else len(wanted)

    def _deep_enough(
        self, queries: Vectors, exclude: Sequence[str], wanted: Keys | None, ask: Ask
    ) -> list[Chosen]:
        """Looks at more and more of the nearest, until what was asked for is among them or all was seen."""
        depth = ask.passed + ask.k * ask.group_size + 1 + any(exclude)
        while True:
            found = self._scan(queries, depth, wanted)
            begin = time.perf_counter()
            rows = self.searcher.rows(set(chain.from_iterable(one.keys for one in found)), self.reader)
            chosen = [choose(_hits(one, own, rows), ask) for one, own in zip(found, exclude, strict=True)]
            self.rows_seconds += time.perf_counter() - begin
            if ask.every or depth >= self._most(wanted) or all(c.enough for c in chosen):
                return chosen
            depth *= _DEEPER

    def _scan(self, queries: Vectors, depth: int, wanted: Keys | None) -> list[Found]:
        begin = time.perf_counter()
        if self.ask.every and self.ask.min_score is not None:
            least = self.ask.min_score
            found = [self.view.within(query, least, depth, wanted) for query in queries]
        elif self.through_index:
            self.searcher.probe.see(queries[0])
            found = propose(self.view, queries, depth, wanted)
        else:
            found = self.view.search(queries, depth, wanted)
        self.scan_seconds += time.perf_counter() - begin
        return found

    def _filled(self, query: Descriptor, own: str, leaders: Chosen) -> Chosen:
        """Returns whole groups, looked for among their members alone, where the nearest of each is known."""
        groups = [hit.group_json for hit in leaders.hits if hit.group_json]
        lone = [hit for hit in leaders.hits if not hit.group_json]
        if not groups:
            return leaders
        members = both(parse_filter(self.ask.where), members_of(self.ask.group_by, groups))
        keys = self.searcher.keys(members, self.reader, self.view)
        (whole,) = self._deep_enough(query[None], [own], keys, replace(self.ask, k=len(groups)))
        return leaders._replace(hits=sorted([*whole.hits, *lone], key=lambda hit: (-hit.score, hit.id)))


def _hits(found: Found, own: str, rows: dict[int, Row]) -> list[Hit]:
    ordered = []
    for key, score in zip(*found, strict=True):
        row = rows[key]
        ordered.append((-score, row.id, row.attributes_json))
    ordered.sort()
    return [Hit(item_id, -below, attributes) for below, item_id, attributes in ordered if item_id != own]
