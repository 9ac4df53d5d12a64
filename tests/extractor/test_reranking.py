"""What neighbours say about an order."""

from __future__ import annotations

import numpy as np
import pytest
from lookalike_extractor.reranking import expand_query, k_reciprocal


def unit(*rows: tuple[float, ...]) -> np.ndarray:
    array = np.array(rows, np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def test_an_expanded_query_leans_towards_its_neighbours() -> None:
    query, neighbour = unit((1, 0), (1, 1))
    expanded = expand_query(query, neighbour[None])
    weight = 0.5**1.5  # the similarity, to the third power
    expected = query + weight * neighbour
    np.testing.assert_allclose(expanded, expected / np.linalg.norm(expected), rtol=1e-6)


def test_neighbours_that_point_away_have_no_say() -> None:
    query, away = unit((1, 0), (-1, 0.1))
    np.testing.assert_allclose(expand_query(query, away[None]), query, atol=1e-6)


def test_whoever_shares_the_querys_neighbours_comes_before_a_lone_item_as_near() -> None:
    # The query stands in a cluster of five; the stranger is as near as the cluster's edge, among others.
    rng = np.random.default_rng(0)
    cluster = unit(*(np.array([1, 0, 0]) + 0.15 * rng.normal(size=(6, 3))))
    others = unit(*(np.array([0.55, 0.8, 0]) + 0.05 * rng.normal(size=(8, 3))))
    query, candidates = cluster[0], np.concatenate([cluster[1:], others])
    order = np.argsort(-k_reciprocal(query, candidates, k1=5, k2=3))
    assert set(order[:5]) == set(range(5))
    close = k_reciprocal(query, candidates, k1=5, k2=3)
    assert close[:5].min() - close[5:].max() > (candidates @ query)[:5].min() - (candidates @ query)[5:].max()


def test_an_equal_picture_is_closest_of_all() -> None:
    rows = unit((1, 0, 0), (1, 0, 0), (0.9, 0.2, 0), (0, 1, 0), (0, 0, 1))
    close = k_reciprocal(rows[0], rows[1:], k1=2, k2=1)
    assert close.argmax() == 0
    assert close[0] == pytest.approx(0, abs=1e-6)
    assert (close >= -1).all()


@pytest.mark.parametrize("count", [1, 2, 30])
def test_few_and_many_candidates_are_ordered(count: int) -> None:
    rows = unit(*np.random.default_rng(1).normal(size=(count + 1, 4)))
    assert k_reciprocal(rows[0], rows[1:]).shape == (count,)
