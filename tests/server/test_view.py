"""Views: exact answers whatever was written and deleted, and what a search began with never changes."""

from __future__ import annotations

import lookalike_server.view
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lookalike_server.scan import exact_scores
from lookalike_server.view import View


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookalike_server.view, "PART_ROWS", 8)


def vectors_of(seed: int, count: int, dimension: int = 4) -> np.ndarray:
    """Few directions, so that many vectors are equal."""
    choices = np.random.default_rng(seed).choice([-1.0, 0.0, 1.0], (count, dimension))
    choices[:, 0] += 2
    return (choices / np.linalg.norm(choices, axis=1, keepdims=True)).astype(np.float32)


def expected(rows: dict[int, np.ndarray], query: np.ndarray, k: int) -> dict[int, float]:
    """The k best rows and all that tie with the last."""
    if not rows:
        return {}
    scores = exact_scores(query, np.array([*rows.values()], np.float32))
    least = np.sort(scores)[::-1][min(k, len(scores)) - 1]
    return {key: float(score) for key, score in zip(rows, scores, strict=True) if score >= least}


def check(view: View, rows: dict[int, np.ndarray], k: int, wanted: set[int] | None = None) -> None:
    gathered = np.empty((view.sequence + 3, 4))
    assert view.gather(range(-1, view.sequence + 2), gathered) == sorted(rows)
    assert np.array_equal(gathered[: len(rows)], np.array([rows[key] for key in sorted(rows)]).reshape(-1, 4))
    queries = vectors_of(99, 5)
    keys = None if wanted is None else np.array(sorted(wanted), np.int64)
    chosen = rows if wanted is None else {key: rows[key] for key in rows if key in wanted}
    for query, found in zip(queries, view.search(queries, k, keys), strict=True):
        assert dict(zip(*found, strict=True)) == expected(chosen, query, k)


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.lists(st.integers(0, 60), max_size=6)), min_size=1, max_size=12
    ),
    st.integers(1, 20),
    st.sets(st.integers(0, 80)),
    st.integers(0, 2**16),
)
@settings(max_examples=100, deadline=None)
def test_a_view_finds_what_brute_force_finds_after_any_writes(
    writes: list[tuple[int, list[int]]], k: int, wanted: set[int], seed: int
) -> None:
    rows: dict[int, np.ndarray] = {}
    view, last = View(4), 0
    for added, removed in writes:
        gone = sorted(set(removed) & set(rows))
        keys = np.arange(last + 1, last + 1 + added, dtype=np.int64)
        vectors = vectors_of(seed + last, added)
        last += added
        view = view.changed(last, keys, vectors, gone)
        rows |= dict(zip(keys.tolist(), vectors, strict=True))
        for key in gone:
            del rows[key]
    assert view.count == len(rows)
    check(view, rows, k)
    check(view, rows, k, wanted & set(rows))
    keys, copied = view.snapshot()
    assert keys.tolist() == list(rows)
    assert np.array_equal(copied, np.array([*rows.values()], np.float32).reshape(-1, 4))


def test_an_older_view_answers_as_before_while_newer_ones_are_made() -> None:
    vectors = vectors_of(1, 30)
    old = View(4).changed(5, np.arange(1, 6), vectors[:5], [])
    rows = dict(zip(range(1, 6), vectors[:5], strict=True))
    new = old.changed(30, np.arange(6, 31), vectors[5:], [1, 2])
    check(old, rows, 3)
    assert (old.count, new.count) == (5, 28)


def test_a_score_does_not_depend_on_the_company_of_its_row_or_query() -> None:
    generator = np.random.default_rng(5)
    vectors = generator.standard_normal((100, 67)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[40] = vectors[93] = vectors[7]
    view = View(67).changed(100, np.arange(1, 101), vectors, [])
    alone = view.search(vectors[:1], 100)[0]
    among = view.search(vectors, 100)[0]
    assert np.array_equal(np.sort(alone.scores), np.sort(among.scores))
    scores = dict(zip(*alone, strict=True))
    assert scores[8] == scores[41] == scores[94]


def test_an_empty_view_and_an_empty_batch_find_nothing() -> None:
    assert [len(found.keys) for found in View(4).search(vectors_of(0, 2), 3)] == [0, 0]
    full = View(4).changed(2, np.array([1, 2]), vectors_of(0, 2), [])
    assert full.search(np.empty((0, 4), np.float32), 3) == []
    assert len(full.search(vectors_of(0, 1), 3, np.empty(0, np.int64))[0].keys) == 0
