"""Filters on attributes: a small language, compiled to SQL over the JSON column (filter_sql.py).

    price < 100 and not (brand in ("acme", "zenith") or exists(recalled))
    size.width >= 640 and name starts_with "IMG_" and sold = false

    filter      or
    or          and { "or" and }
    and         not { "and" not }
    not         "not" not | "(" or ")" | test
    test        path ("=" | "!=" | "<" | "<=" | ">" | ">=") value
              | path ["not"] "in" "(" value { "," value } ")"
              | path "starts_with" string
              | "exists" "(" path ")"
    path        key { "." key }             size.width is {"size": {"width": ...}}
    key         letters, digits, "_" and "-", beginning with a letter or "_"; anything else in `backquotes`
    value       string | number | "true" | "false" | "null"
    string      in "double" or 'single' quotes, with the escapes of JSON (and \\' for a single quote)
    number      as in JSON

Words of the language are not case-sensitive; keys and strings are. A key that is a word of the language
stands in backquotes.

Meaning. A test compares values of one type: numbers with numbers, strings with strings (by code point),
booleans with booleans. It is false, never an error, where the attribute is missing or of another type. `!=`
and `not in` are exactly the opposite of `=` and `in`: they are true where the attribute is missing. `= null`
is true where the attribute is null or missing, so that `!= null` means that there is a value. `exists(path)`
asks only whether the key is there. Every filter is therefore true or false for every item, and `not` turns
one into the other.

Whole numbers beyond 64 bits are compared as floating-point numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from lark import Lark, UnexpectedInput
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken, VisitError

from lookalike_server.errors import FilterInvalid
from lookalike_server.filter_sql import Compiler, Fault, Filter, Node, among, json_path, keys_of

MOST_FILTER_BYTES = 65_536
# SQLite parses expressions up to a depth of 1000; ours take a few levels each.
_MOST_DEPTH = 100
_TOO_DEEP = "The filter is nested too deeply. Write it with fewer parentheses and fewer `not`."

_GRAMMAR = r"""
?start: or_
?or_: and_ (_OR and_)*
?and_: not_ (_AND not_)*
?not_: _NOT not_ -> negation
     | "(" or_ ")"
     | test
?test: path COMPARISON value -> comparison
     | path _IN "(" value ("," value)* ")" -> membership
     | path _NOT _IN "(" value ("," value)* ")" -> no_membership
     | path _STARTS_WITH STRING -> prefix
     | _EXISTS "(" path ")" -> existence
path: (KEY | QUOTED_KEY) ("." (KEY | QUOTED_KEY))*
value: STRING -> string | NUMBER -> number | TRUE -> true | FALSE -> false | NULL -> null

COMPARISON: "<=" | ">=" | "!=" | "=" | "<" | ">"
_OR.2: /or(?![\w-])/i
_AND.2: /and(?![\w-])/i
_NOT.2: /not(?![\w-])/i
_IN.2: /in(?![\w-])/i
_EXISTS.2: /exists(?![\w-])/i
_STARTS_WITH.2: /starts_with(?![\w-])/i
TRUE.2: /true(?![\w-])/i
FALSE.2: /false(?![\w-])/i
NULL.2: /null(?![\w-])/i
KEY: /[^\W\d][\w-]*/
QUOTED_KEY: /`[^`]+`/
STRING: /"(?:[^"\\\x00-\x1f]|\\.)*"/ | /'(?:[^'\\\x00-\x1f]|\\.)*'/
NUMBER: /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.])/
%import common.WS
%ignore WS
"""

_WORDS = {
    "COMPARISON": "=, !=, <, <=, >, >=",
    "STRING": "a string in quotes",
    "NUMBER": "a number",
    "KEY": "an attribute",
    "QUOTED_KEY": "an attribute",
    "TRUE": "true",
    "FALSE": "false",
    "NULL": "null",
    "LPAR": "'('",
    "RPAR": "')'",
    "COMMA": "','",
    "DOT": "'.'",
    "$END": "the end",
}


_NAMES = {
    "where": "The filter",
    "group_by": "The attribute to group by",
    "attribute_indexes": "The attribute to index",
}
_RESERVED = {"or", "and", "not", "in", "exists", "starts_with", "true", "false", "null"}
_PLAIN_KEY = re.compile(r"[^\W\d][\w-]*")

EVERYTHING = Filter("TRUE")


@lru_cache(maxsize=256)
def parse_filter(where: str) -> Filter:
    """Returns the condition; "" means every item. Raises FilterInvalid with the place marked by a caret."""
    if not where.strip():
        return EVERYTHING
    if len(where.encode("utf-8", "replace")) > MOST_FILTER_BYTES:
        raise FilterInvalid(f"The filter is longer than {MOST_FILTER_BYTES} bytes.", field="where")
    node: Node = _parsed(where, "start", "where")
    if node.depth > _MOST_DEPTH:
        raise FilterInvalid(_TOO_DEEP, field="where")
    return Filter(node.sql, node.parameters)


@lru_cache(maxsize=256)
def parse_path(path: str, field: str) -> tuple[str, ...]:
    """Returns the keys of an attribute's path, as ("size", "width"). Raises FilterInvalid."""
    return keys_of(_parsed(path, "path", field))


def path_text(keys: Sequence[str]) -> str:
    """Returns how a path is written, as `parse_path` reads it."""
    return ".".join(
        key if _PLAIN_KEY.fullmatch(key) and key.lower() not in _RESERVED else f"`{key}`" for key in keys
    )


def equals_any(path: Sequence[str], values: Sequence[object]) -> Filter:
    """Returns the condition that an attribute equals one of those strings, numbers or booleans."""
    node = among(json_path(path), values)
    return Filter(node.sql, node.parameters)


def both(one: Filter, other: Filter) -> Filter:
    return Filter(f"({one.sql}) AND ({other.sql})", one.parameters + other.parameters)


def _parsed(text: str, start: str, field: str) -> Any:
    try:
        return Compiler().transform(_PARSER.parse(text, start))
    except UnexpectedInput as error:
        raise _unexpected(text, field, error) from None
    except VisitError as error:
        if not isinstance(error.orig_exc, Fault):
            raise
        raise _invalid(text, field, *error.orig_exc.args) from None
    except RecursionError:
        raise FilterInvalid(_TOO_DEEP, field=field) from None


def _unexpected(where: str, field: str, error: UnexpectedInput) -> FilterInvalid:
    expected: Sequence[str] = ()
    if isinstance(error, UnexpectedToken):
        expected = sorted(error.accepts or error.expected)
    elif isinstance(error, UnexpectedCharacters):
        expected = sorted(error.allowed or ())
    ended = isinstance(error, UnexpectedEOF) or (
        isinstance(error, UnexpectedToken) and error.token.type == "$END"
    )
    place = len(where) if ended or error.pos_in_stream is None else error.pos_in_stream
    words = list(dict.fromkeys(_WORDS.get(name, f"'{name.strip('_').lower()}'") for name in expected))
    told = " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
    hint = f"expected {told}" if told else "this cannot be read"
    return _invalid(where, field, hint, place)


def _invalid(where: str, field: str, fault: str, place: int) -> FilterInvalid:
    """Shows the line of the fault with a caret under its place, cut to what fits a terminal."""
    start = where.rfind("\n", 0, place) + 1
    line = where[start:].split("\n", 1)[0]
    column = place - start
    first = max(0, column - 60)
    shown = line[first : first + 100]
    caret = " " * (column - first) + "^"
    return FilterInvalid(
        f"{_NAMES[field]} cannot be read: {fault}, at character {place + 1}.\n  {shown}\n  {caret}",
        field=field,
        position=str(place),
    )


_PARSER = Lark(_GRAMMAR, start=["start", "path"], parser="lalr", lexer="contextual")
