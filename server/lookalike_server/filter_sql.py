"""Filters as SQL: a tree of the grammar in filters.py becomes a condition on rows of the table `item`.

Values are parameters. Paths are literals, because SQLite uses an index on an expression (attributes.py) only
where the query holds the same expression. NULL counts as false; `_negated` makes it true.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lark import Token, Transformer, v_args

# Of whole numbers of 64 bits, with their sign.
_MOST_DIGITS = 20


@dataclass(frozen=True)
class Filter:
    """A condition on the table `item`; NULL is false."""

    sql: str
    parameters: tuple[object, ...] = ()


class Fault(Exception):
    """A fault found while compiling: (message, place)."""


@dataclass(frozen=True)
class Node:
    """SQL that is true, false or NULL, with its parameters and the depth of its expression."""

    sql: str
    parameters: tuple[object, ...]
    depth: int = 1


@v_args(inline=True)
class Compiler(Transformer[Token, Node]):
    """Turns the tree into SQL."""

    def or_(self, *tests: Node) -> Node:
        return _joined("OR", tests)

    def and_(self, *tests: Node) -> Node:
        return _joined("AND", tests)

    def negation(self, test: Node) -> Node:
        return _negated(test)

    def comparison(self, path: str, operator: Token, value: object) -> Node:
        if operator == "=":
            return among(path, (value,))
        if operator == "!=":
            return _negated(among(path, (value,)))
        if value is None or isinstance(value, bool):
            raise Fault(f"{json.dumps(value)} has no order, use = or !=", operator.start_pos)
        return _typed(path, value, f"{value_of(path)} {operator} ?", value)

    def membership(self, path: str, *values: object) -> Node:
        return among(path, values)

    def no_membership(self, path: str, *values: object) -> Node:
        return _negated(among(path, values))

    def prefix(self, path: str, text: Token) -> Node:
        start = _unquoted(text)
        end = _after_all_with(start)
        if end is None:
            return _typed(path, start, f"{value_of(path)} >= ?", start)
        return _typed(path, start, f"{value_of(path)} >= ? AND {value_of(path)} < ?", start, end)

    def existence(self, path: str) -> Node:
        return Node(f"{type_of(path)} IS NOT NULL", ())

    def path(self, *keys: Token) -> str:
        return json_path([_key(key) for key in keys])

    def string(self, text: Token) -> str:
        return _unquoted(text)

    def number(self, text: Token) -> int | float:
        if text.lstrip("-").isdigit() and len(text) <= _MOST_DIGITS:
            value = int(text)
            if -(2**63) <= value < 2**63:
                return value
        return float(text)

    def true(self, _: Token) -> bool:
        return True

    def false(self, _: Token) -> bool:
        return False

    def null(self, _: Token) -> None:
        return None


def json_path(keys: Sequence[str]) -> str:
    """Returns the path of SQLite's JSON functions, as $."size"."width". Keys hold no quotes."""
    return "$" + "".join(f'."{key}"' for key in keys)


def type_of(path: str) -> str:
    """SQL for the type of an attribute's value: NULL where it is missing."""
    return f"json_type(attributes, {_literal(path)})"


def value_of(path: str) -> str:
    """SQL for an attribute's value, a number or text."""
    return f"json_extract(attributes, {_literal(path)})"


def _literal(path: str) -> str:
    return "'" + path.replace("'", "''") + "'"


def keys_of(path: str) -> tuple[str, ...]:
    return tuple(path[3:-1].split('"."'))


def among(path: str, values: Sequence[object]) -> Node:
    """The attribute is equal to one of the values. Each type of value is looked for among its own."""
    tests = []
    for same in (str, (int, float)):
        chosen = [v for v in values if isinstance(v, same) and not isinstance(v, bool)]
        if chosen:
            marks = ", ".join("?" * len(chosen))
            tests.append(_typed(path, chosen[0], f"{value_of(path)} IN ({marks})", *chosen))
    named = {json.dumps(v) for v in values if v is None or isinstance(v, bool)}
    tests += [Node(f"{type_of(path)} = '{name}'", ()) for name in sorted(named)]
    if "null" in named:
        tests.append(Node(f"{type_of(path)} IS NULL", ()))
    return _joined("OR", tests)


def _typed(path: str, like: object, test: str, *parameters: object) -> Node:
    """The test, false or NULL where the attribute is missing or of another type than `like`."""
    types = "= 'text'" if isinstance(like, str) else "IN ('integer', 'real')"
    return Node(f"({type_of(path)} {types} AND {test})", parameters, 3)


def _negated(test: Node) -> Node:
    return Node(f"({test.sql}) IS NOT TRUE", test.parameters, test.depth + 1)


def _after_all_with(start: str) -> str | None:
    """Returns the first string, by code points, after all that begin with `start`; None without one."""
    start = start.rstrip("\U0010ffff")
    if not start:
        return None
    following = ord(start[-1]) + 1
    return start[:-1] + chr(0xE000 if following == 0xD800 else following)  # the gap is no text


def _joined(word: str, tests: Sequence[Node]) -> Node:
    """Joins in halves: a plain row is as deep as it is long, and SQLite bounds the depth."""
    if len(tests) == 1:
        return tests[0]
    left, right = _joined(word, tests[: len(tests) // 2]), _joined(word, tests[len(tests) // 2 :])
    return Node(
        f"({left.sql} {word} {right.sql})",
        left.parameters + right.parameters,
        max(left.depth, right.depth) + 1,
    )


def _key(token: Token) -> str:
    key = token.strip("`")
    if any(c in '"\\' or c < " " for c in key):
        raise Fault(
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
        raise Fault("this string has an escape that JSON does not know", token.start_pos) from None
    return text


def _as_json(match: re.Match[str]) -> str:
    """Turns what a string in single quotes writes in its own way into JSON's way."""
    return {"\\'": "'", '"': '\\"'}.get(match[0], match[0])
