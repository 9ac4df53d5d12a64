"""Filters: what they mean, by a second reading of the language in Python, and how faults are told."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lookalike_server.errors import AttributesInvalid, FilterInvalid
from lookalike_server.filters import parse_filter
from lookalike_server.rows import compact_attributes

Attributes = dict[str, Any]
Predicate = Callable[[Attributes], bool]
MISSING = object()


def fits(where: str, attributes: Attributes) -> bool:
    condition = parse_filter(where)
    with sqlite3.connect(":memory:") as connection:
        found = connection.execute(
            f"SELECT 1 FROM (SELECT ? AS attributes) WHERE {condition.sql}",
            (compact_attributes(json.dumps(attributes)), *condition.parameters),
        )
        answer = found.fetchone()
    connection.close()
    return answer is not None


SHOE = {"price": 99.5, "brand": "acme", "sold": False, "size": {"eu": 42}, "note": None, "tags": ["a", "b"]}


@pytest.mark.parametrize(
    "where",
    [
        "",
        "price < 100",
        "price <= 99.5 and price >= 99.5",
        "price > 99 and not price > 100",
        "price = 99.5",
        "price != 99",
        'brand = "acme"',
        "brand = 'acme'",
        "brand < 'acmf'",
        "brand starts_with 'ac'",
        "brand IN ('zenith', 'acme')",
        "brand not in ('zenith', 1, null)",
        "sold = false",
        "size.eu = 42",
        "`size`.`eu` = 42",
        "exists(note) and note = null",
        "not exists(colour)",
        "colour = null",
        "brand != null",
        "brand = 'zenith' or price < 100 and sold = false",
        "not (brand = 'zenith' or sold = true)",
        "price < 1e3 and price > -1.5E-3",
    ],
)
def test_these_filters_fit_the_shoe(where: str) -> None:
    assert fits(where, SHOE)


@pytest.mark.parametrize(
    "where",
    [
        "price > 100",
        "price = '99.5'",
        "brand < 5",
        "brand = 'Acme'",
        "brand starts_with 'acmee'",
        "brand in ('zenith', true)",
        "sold = 0",
        "sold = null",
        "size = 42",
        "size.uk = 8",
        "price.eu = 42",
        "tags = 'a'",
        "note != null",
        "colour < 5",
        "colour >= ''",
        "colour in ('red')",
        "colour starts_with ''",
        "exists(size.uk)",
        "(brand = 'acme' or sold = true) and price > 100",
    ],
)
def test_these_filters_do_not_fit_the_shoe(where: str) -> None:
    assert not fits(where, SHOE)


def test_the_filters_of_the_guide_can_be_read() -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()
    examples = guide.split("## Filters")[1].split("```")[1].strip().splitlines()
    assert len(examples) == 7
    for where in examples:
        parse_filter(where)


def test_a_missing_attribute_is_different_from_any_value() -> None:
    assert fits("colour != 'red'", SHOE)
    assert fits("colour not in ('red', 'blue')", SHOE)


def test_keys_of_any_letters_are_found_however_the_client_wrote_them() -> None:
    attributes = {"größe": 1, "a.b": 2, "odd key": 3}
    assert fits("größe = 1 and `a.b` = 2 and `odd key` = 3", attributes)


def test_a_string_is_never_read_as_sql() -> None:
    assert fits("brand = ?".replace("?", json.dumps("' OR 1=1 --")), {"brand": "' OR 1=1 --"})
    assert not fits("brand = '\\' OR 1=1 --'", SHOE)


def test_whole_numbers_of_64_bits_are_told_apart() -> None:
    big = 2**63 - 1
    assert fits(f"n = {big}", {"n": big})
    assert not fits(f"n = {big - 1}", {"n": big})
    assert fits(f"n > {big}", {"n": 2**70})


def test_numbers_of_more_digits_than_python_reads_are_numbers_too() -> None:
    assert fits(f"n < {'9' * 5000} and n > -{'9' * 5000}", {"n": 2**63})
    with pytest.raises(AttributesInvalid, match="a number has 5000 digits"):
        compact_attributes(f'{{"n": {"9" * 5000}}}')


def test_words_of_the_language_are_keys_in_backquotes() -> None:
    assert fits("`in` = 1 and `not` = 2 and order = 3", {"in": 1, "not": 2, "order": 3})


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("price <", 7),
        ("price = 1 brand = 2", 10),
        ("price == 1", 7),
        ("name = 'a", 7),
        ("price < null", 6),
        ("(price = 1", 10),
        ("brand in ()", 10),
        ("a = 1.2.3", 4),
        ("a = 1 and\n  b ~ 2", 14),
        ("'a' = 'b'", 0),
        ('`a"b` = 1', 0),
        ("a = 'x\\q'", 4),
    ],
)
def test_a_fault_is_marked_where_it_is(where: str, place: int) -> None:
    with pytest.raises(FilterInvalid) as caught:
        parse_filter(where)
    _, line, caret = caught.value.message.split("\n")
    assert caught.value.metadata["position"] == str(place)
    start = where.rfind("\n", 0, place) + 1
    assert line[2:] == where[start:].split("\n")[0]
    assert caret == "  " + " " * (place - start) + "^"


def test_the_message_tells_what_could_have_stood_there() -> None:
    with pytest.raises(
        FilterInvalid, match=r"expected =, .*>=, '.', 'in', 'not' or 'starts_with', at character 6"
    ):
        parse_filter("name like 'a%'")
    with pytest.raises(
        FilterInvalid, match=r"expected .* a number, a string in quotes or true, at character 9"
    ):
        parse_filter("brand = acme")


@pytest.mark.parametrize("where", ["not " * 5000 + "a = 1", "a = '" + "x" * 70_000 + "'"])
def test_a_monstrous_filter_is_refused(where: str) -> None:
    with pytest.raises(FilterInvalid):
        parse_filter(where)


def test_a_filter_of_a_thousand_alternatives_works() -> None:
    where = " or ".join(f"n = {i}" for i in range(1000))
    assert fits(where, {"n": 999})
    assert not fits(where, {"n": 1000})
    assert fits("(" * 300 + "n = 1" + ")" * 300, {"n": 1})


# The law: SQL agrees with a plain reading of the language in Python.

KEYS = ["a", "b", "ç d"]
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=2), max_leaves=3)
attributes = st.dictionaries(
    st.sampled_from(KEYS), values | st.dictionaries(st.sampled_from(KEYS), values), max_size=3
)
paths = st.lists(st.sampled_from(KEYS), min_size=1, max_size=2)


def look_up(attributes: Attributes, path: list[str]) -> Any:
    value: Any = attributes
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return MISSING
        value = value[key]
    return value


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def equal(found: Any, value: Any) -> bool:
    if value is None:
        return found is MISSING or found is None
    if isinstance(value, bool):
        return found is value
    if isinstance(value, str):
        return isinstance(found, str) and found == value
    return is_number(found) and found == value


def ordered(found: Any, operator: str, value: Any) -> bool:
    if not (is_number(found) and is_number(value)) and not (
        isinstance(found, str) and isinstance(value, str)
    ):
        return False
    return {"<": found < value, "<=": found <= value, ">": found > value, ">=": found >= value}[operator]


def begins(found: Any, text: str) -> bool:
    return isinstance(found, str) and found.startswith(text)


def written(path: list[str]) -> str:
    return ".".join(f"`{key}`" for key in path)


@st.composite
def single_tests(draw: st.DrawFn) -> tuple[str, Predicate]:
    path, value = draw(paths), draw(scalars)
    name, literal = written(path), json.dumps(value)
    kind = draw(st.sampled_from(["=", "!=", "order", "in", "not in", "starts_with", "exists"]))
    if kind == "=":
        return f"{name} = {literal}", lambda a: equal(look_up(a, path), value)
    if kind == "!=":
        return f"{name} != {literal}", lambda a: not equal(look_up(a, path), value)
    if kind == "order":
        value = draw(scalars.filter(lambda v: v is not None and not isinstance(v, bool)))
        operator = draw(st.sampled_from(["<", "<=", ">", ">="]))
        return f"{name} {operator} {json.dumps(value)}", lambda a: ordered(look_up(a, path), operator, value)
    if kind == "starts_with":
        text = draw(texts)
        return f"{name} starts_with {json.dumps(text)}", lambda a: begins(look_up(a, path), text)
    if kind == "exists":
        return f"exists({name})", lambda a: look_up(a, path) is not MISSING
    members = draw(st.lists(scalars, min_size=1, max_size=4))
    listed = ", ".join(map(json.dumps, members))
    return (
        f"{name} {kind} ({listed})",
        lambda a: any(equal(look_up(a, path), m) for m in members) == (kind == "in"),
    )


def combined(inner: st.SearchStrategy[tuple[str, Predicate]]) -> st.SearchStrategy[tuple[str, Predicate]]:
    return (
        st.tuples(inner, inner).map(
            lambda p: (f"({p[0][0]} and {p[1][0]})", lambda a: p[0][1](a) and p[1][1](a))
        )
        | st.tuples(inner, inner).map(
            lambda p: (f"({p[0][0]} OR {p[1][0]})", lambda a: p[0][1](a) or p[1][1](a))
        )
        | inner.map(lambda p: (f"not {p[0]}", lambda a: not p[1](a)))
    )


@given(st.recursive(single_tests(), combined, max_leaves=6), st.lists(attributes, min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_a_filter_means_in_sql_what_it_means_in_python(
    made: tuple[str, Predicate], items: list[Attributes]
) -> None:
    where, predicate = made
    for item in items:
        assert fits(where, item) == predicate(item), (where, item)


@given(st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_filter_or_is_refused_in_words(where: str) -> None:
    with contextlib.suppress(FilterInvalid):
        fits(where, SHOE)
