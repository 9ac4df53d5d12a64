"""Filters on attributes: a small language, compiled to SQL over the JSON column.

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

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lark import Lark, Token, Transformer, UnexpectedInput, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken, VisitError

from lookalike_server.errors import FilterInvalid

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
    "COMPARISON": "= != < <= > >=",
    "STRING": "a string",
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


@dataclass(frozen=True)
class Filter:
    """A condition on the table `item`, always true or false, never NULL."""

    sql: str
    parameters: tuple[object, ...] = ()


EVERYTHING = Filter("TRUE")


@lru_cache(maxsize=256)
def parse_filter(where: str) -> Filter:
    """Returns the condition; "" means every item. Raises FilterInvalid with the place marked by a caret."""
    if not where.strip():
        return EVERYTHING
    if len(where.encode("utf-8", "replace")) > MOST_FILTER_BYTES:
        raise FilterInvalid(f"The filter is longer than {MOST_FILTER_BYTES} bytes.", field="where")
    try:
        node = _Compiler().transform(_PARSER.parse(where))
    except UnexpectedInput as error:
        raise _unexpected(where, error) from None
    except VisitError as error:
        if not isinstance(error.orig_exc, _Fault):
            raise
        raise _invalid(where, *error.orig_exc.args) from None
    except RecursionError:
        raise FilterInvalid(_TOO_DEEP, field="where") from None
    if node.depth > _MOST_DEPTH:
        raise FilterInvalid(_TOO_DEEP, field="where")
    return Filter(node.sql, node.parameters)


def _unexpected(where: str, error: UnexpectedInput) -> FilterInvalid:
    expected: Sequence[str] = ()
    if isinstance(error, UnexpectedToken):
        expected = sorted(error.accepts or error.expected)
    elif isinstance(error, UnexpectedCharacters):
        expected = sorted(error.allowed or ())
    ended = isinstance(error, UnexpectedEOF) or (
        isinstance(error, UnexpectedToken) and error.token.type == "$END"
    )
    place = len(where) if ended or error.pos_in_stream is None else error.pos_in_stream
    words = list(dict.fromkeys(_WORDS.get(name, name.strip("_").lower()) for name in expected))
    hint = f"expected {' or '.join(words)}" if words else "this cannot be read"
    return _invalid(where, hint, place)


def _invalid(where: str, fault: str, place: int) -> FilterInvalid:
    """Shows the line of the fault with a caret under its place, cut to what fits a terminal."""
    start = where.rfind("\n", 0, place) + 1
    line = where[start:].split("\n", 1)[0]
    column = place - start
    first = max(0, column - 60)
    shown = line[first : first + 100]
    caret = " " * (column - first) + "^"
    return FilterInvalid(
        f"The filter cannot be read: {fault}, at character {place + 1}.\n  {shown}\n  {caret}",
        field="where",
        position=str(place),
    )


class _Fault(Exception):
    """A fault found while compiling: (message, place)."""


@dataclass(frozen=True)
class _Node:
    """SQL that is true or false, with its parameters and the depth of its expression."""

    sql: str
    parameters: tuple[object, ...]
    depth: int = 1


@v_args(inline=True)
class _Compiler(Transformer[Token, _Node]):
    """Turns the tree into SQL. No text of the user's gets into it: paths and values are parameters."""

    def or_(self, *tests: _Node) -> _Node:
        return _joined("OR", tests)

    def and_(self, *tests: _Node) -> _Node:
        return _joined("AND", tests)

    def negation(self, test: _Node) -> _Node:
        return _negated(test)

    def comparison(self, path: str, operator: Token, value: object) -> _Node:
        if operator == "=":
            return _among(path, (value,))
        if operator == "!=":
            return _negated(_among(path, (value,)))
        if value is None or isinstance(value, bool):
            raise _Fault(f"{json.dumps(value)} has no order, use = or !=", operator.start_pos)
        return _typed(path, value, f"json_extract(attributes, ?) {operator} ?", path, value)

    def membership(self, path: str, *values: object) -> _Node:
        return _among(path, values)

    def no_membership(self, path: str, *values: object) -> _Node:
        return _negated(_among(path, values))

    def prefix(self, path: str, text: Token) -> _Node:
        start = _unquoted(text)
        return _typed(path, start, "substr(json_extract(attributes, ?), 1, ?) = ?", path, len(start), start)

    def existence(self, path: str) -> _Node:
        return _Node("json_type(attributes, ?) IS NOT NULL", (path,))

    def path(self, *keys: Token) -> str:
        return "$" + "".join(f'."{_key(key)}"' for key in keys)

    def string(self, text: Token) -> str:
        return _unquoted(text)

    def number(self, text: Token) -> int | float:
        value: int | float = json.loads(text)
        return value if isinstance(value, int) and -(2**63) <= value < 2**63 else float(value)

    def true(self, _: Token) -> bool:
        return True

    def false(self, _: Token) -> bool:
        return False

    def null(self, _: Token) -> None:
        return None


def _among(path: str, values: Sequence[object]) -> _Node:
    """The attribute is equal to one of the values. Each type of value is looked for among its own."""
    tests = []
    for same in (str, (int, float)):
        chosen = [v for v in values if isinstance(v, same) and not isinstance(v, bool)]
        if chosen:
            marks = ", ".join("?" * len(chosen))
            tests.append(_typed(path, chosen[0], f"json_extract(attributes, ?) IN ({marks})", path, *chosen))
    types = [json.dumps(v) for v in values if v is None or isinstance(v, bool)]
    tests += [_Node("coalesce(json_type(attributes, ?), 'null') = ?", (path, name)) for name in types]
    return _joined("OR", tests)


def _typed(path: str, like: object, test: str, *parameters: object) -> _Node:
    """The test, false where the attribute is missing or of another type than `like`."""
    types = "('text')" if isinstance(like, str) else "('integer', 'real')"
    return _Node(f"(coalesce(json_type(attributes, ?), '') IN {types} AND {test})", (path, *parameters), 3)


def _negated(test: _Node) -> _Node:
    return _Node(f"NOT ({test.sql})", test.parameters, test.depth + 1)


def _joined(word: str, tests: Sequence[_Node]) -> _Node:
    """Joins in halves: a plain row is as deep as it is long, and SQLite bounds the depth."""
    if len(tests) == 1:
        return tests[0]
    left, right = _joined(word, tests[: len(tests) // 2]), _joined(word, tests[len(tests) // 2 :])
    return _Node(
        f"({left.sql} {word} {right.sql})",
        left.parameters + right.parameters,
        max(left.depth, right.depth) + 1,
    )


def _key(token: Token) -> str:
    key = token.strip("`")
    if any(c in '"\\' or c < " " for c in key):
        raise _Fault(
            "keys that hold quotes, backslashes or control characters cannot be asked for", token.start_pos
        )
    return key


def _unquoted(token: Token) -> str:
    body = token[1:-1]
    if token[0] == "'":
        body = re.sub(r'\\.|"', _as_json, body)
    try:
        text: str = json.loads(f'"{body}"')
        text.encode()
    except ValueError:
        raise _Fault("this string has an escape that JSON does not know", token.start_pos) from None
    return text


def _as_json(match: re.Match[str]) -> str:
    """Turns what a string in single quotes writes in its own way into JSON's way."""
    return {"\\'": "'", '"': '\\"'}.get(match[0], match[0])


_PARSER = Lark(_GRAMMAR, parser="lalr", lexer="contextual", propagate_positions=False)
