"""Indexes on attributes, for filters: each is one of SQLite's, on the type and the value of a path.

They are part of the store's file: every write keeps them up, a backup holds them, and verifying a collection
compares them with the items. SQLite itself knows which there are; a name begins with `_PREFIX`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from lookalike_server.errors import ArgumentInvalid
from lookalike_server.filter_sql import json_path, type_of, value_of
from lookalike_server.filters import parse_path, path_text

MOST_INDEXES = 32
_MOST_PATH = 1_000
_PREFIX = "attribute:"
_FIELD = "attribute_indexes"


def checked_paths(paths: Sequence[str]) -> tuple[str, ...]:
    """Returns the attributes as filters write them, each once. Raises ArgumentInvalid or FilterInvalid."""
    long = [path for path in paths if len(path) > _MOST_PATH]
    if long:
        raise ArgumentInvalid(
            f"An attribute to index has {len(long[0])} characters; at most {_MOST_PATH} are allowed.",
            field=_FIELD,
        )
    written = tuple(dict.fromkeys(path_text(parse_path(path, _FIELD)) for path in paths))
    if len(written) > MOST_INDEXES:
        raise ArgumentInvalid(
            f"{len(written)} attributes to index are too many; a collection has at most {MOST_INDEXES}. "
            "Each makes writes slower: name those that filters ask for often.",
            field=_FIELD,
        )
    return written


def indexed_attributes(connection: sqlite3.Connection) -> list[str]:
    """Returns the attributes that have an index, in the order in which they were declared."""
    found = connection.execute(
        "SELECT substr(name, ?) FROM sqlite_master WHERE type = 'index' AND name LIKE ? ORDER BY rowid",
        (len(_PREFIX) + 1, _PREFIX + "%"),
    )
    return [path for (path,) in found]


def index_attributes(connection: sqlite3.Connection, paths: Sequence[str]) -> None:
    """Makes and removes indexes until just those of these checked paths are there; in a transaction."""
    there = indexed_attributes(connection)
    for path in there:
        if path not in paths:
            connection.execute(f'DROP INDEX "{_PREFIX}{path}"')
    for path in paths:
        if path not in there:
            sql = json_path(parse_path(path, _FIELD))
            connection.execute(f'CREATE INDEX "{_PREFIX}{path}" ON item({type_of(sql)}, {value_of(sql)})')
