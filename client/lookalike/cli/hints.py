"""What may be wrong with a filter that nothing fits."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from lookalike.cli.output import say

if TYPE_CHECKING:
    from lookalike import Collection

_LOOKED_AT = 1000  # items, one call
_WORDS = {"or", "and", "not", "in", "exists", "starts_with", "true", "false", "null"}
_KEY = r"(?:`[^`]+`|[^\W\d][\w-]*)"
# Numbers too, for 1e3 is no attribute.
_TOKEN = re.compile(
    rf"""(?P<other>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\d[\w.]*)|(?P<path>{_KEY}(?:\s*\.\s*{_KEY})*)"""
)


def hint_at_attributes(shelf: Collection, where: str) -> None:
    """Says which attributes of a filter no item has, with the nearest names.

    Reads some items, and asks for one that has an attribute where none of these has it.
    """
    known = {path for item in islice(shelf.items(), _LOOKED_AT) for path in _paths(item.attributes)}
    for path in dict.fromkeys(_named(where)):
        if path not in known and not any(shelf.items(f"exists({path})")):
            near = difflib.get_close_matches(path, sorted(known), n=2)
            say(
                f"no item has an attribute {path!r}"
                + (f"; did you mean {' or '.join(near)}?" if near else "")
            )


def _named(where: str) -> Iterator[str]:
    """The attributes of a filter, as `_paths` writes them."""
    for token in _TOKEN.finditer(where):
        path = token["path"]
        if path and path.lower() not in _WORDS:
            yield ".".join(_written(key.strip().strip("`")) for key in re.findall(_KEY, path))


def _paths(attributes: Mapping[str, Any]) -> Iterator[str]:
    for key, value in attributes.items():
        path = _written(key)
        yield path
        if isinstance(value, dict):
            yield from (f"{path}.{below}" for below in _paths(value))


def _written(key: str) -> str:
    """As filters write it."""
    plain = re.fullmatch(r"[^\W\d][\w-]*", key) and key.lower() not in _WORDS
    return key if plain else f"`{key}`"
