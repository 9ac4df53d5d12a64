"""Which of the hits that a scan found are given: bounds of the score, groups, pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from lookalike_server.answers import Ask, Hit
from lookalike_server.filter_sql import Filter
from lookalike_server.filters import equals_any, parse_path


class Chosen(NamedTuple):
    """The hits of one query."""

    hits: list[Hit]
    more: bool = False
    """Whether hits were left out."""
    enough: bool = True
    """Whether a deeper look could not change the hits."""


def choose(hits: list[Hit], ask: Ask) -> Chosen:
    """Chooses among the nearest of all hits, which are in order."""
    good = hits
    if ask.min_score is not None:
        good = [hit for hit in hits if hit.score >= ask.min_score]
    ended = len(good) < len(hits)
    if ask.group_by:
        return _grouped(good, ask, ended=ended)
    if ask.after is not None:
        score, item_id = ask.after
        good = [hit for hit in good if (-hit.score, hit.id) > (-score, item_id)]
    return Chosen(good[: ask.k], more=len(good) > ask.k, enough=ended or len(good) > ask.k)


def _grouped(hits: Sequence[Hit], ask: Ask, *, ended: bool) -> Chosen:
    """The nearest of each of the k nearest groups; an item without a value is a group of its own."""
    path = parse_path(ask.group_by, "group_by")
    groups: dict[object, list[Hit]] = {}
    for hit in hits:
        value = group_value(hit.attributes_json, path)
        group = groups.setdefault(value or (hit.id,), [])
        if len(group) < ask.group_size:
            group.append(hit._replace(group_json=value))
    kept = list(groups.values())[: ask.k]
    full = all(len(group) == ask.group_size or not group[0].group_json for group in kept)
    chosen = sorted((hit for group in kept for hit in group), key=lambda hit: (-hit.score, hit.id))
    return Chosen(chosen, more=len(groups) > ask.k, enough=ended or (len(groups) >= ask.k and full))


def group_value(attributes_json: str, path: Sequence[str]) -> str:
    """Returns the value as JSON, the same for equal numbers; "" where there is none that could be equal."""
    value: Any = json.loads(attributes_json)
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None or isinstance(value, dict | list) else json.dumps(value, ensure_ascii=False)


def members_of(group_by: str, groups: Sequence[str]) -> Filter:
    """Returns the condition that an item belongs to one of the groups."""
    return equals_any(parse_path(group_by, "group_by"), [_bounded(json.loads(group)) for group in groups])


def _bounded(value: Any) -> Any:
    """Whole numbers beyond 64 bits are compared as floating-point numbers, as in filters."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)
    return value
