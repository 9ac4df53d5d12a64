"""What a batch costs, learned from those that ran."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lookalike_server.costs import Cost, Margin

seconds = st.floats(1e-4, 1.0)


def learned(each: float, once: float, sizes: list[int]) -> Cost:
    cost = Cost()
    for n in sizes:
        cost.learn(n, each * n + once, weight=20)
    return cost


@given(seconds, seconds)
def test_a_line_is_learned_from_sizes_that_differ(each: float, once: float) -> None:
    cost = learned(each, once, [2, 2, 8, 16])
    assert cost.seconds(32) == pytest.approx(each * 32 + once, rel=0.05)


def test_nothing_is_said_before_three_batches() -> None:
    cost = learned(0.1, 0, [2, 8])
    assert not cost.known
    assert cost.seconds(9) == 0


@given(st.floats(0.2, 5))
def test_sizes_that_are_all_alike_tell_of_speed_and_not_of_shape(slower: float) -> None:
    cost = learned(0.010, 0.020, [2, 2, 8, 16])
    for _ in range(300):
        cost.learn(8, 0.100 * slower)
    assert cost.seconds(8) == pytest.approx(0.100 * slower, rel=0.05)
    assert cost.once / cost.each == pytest.approx(2, rel=0.4)


def test_one_batch_that_took_for_ever_is_no_measure() -> None:
    cost = learned(0.01, 0.01, [2, 2, 8, 16] * 5)
    cost.learn(8, 60.0)
    assert cost.seconds(8) < 0.2


def test_batches_are_no_larger_than_is_efficient() -> None:
    flat, steep = learned(0.001, 0.1, [2, 8, 32, 64]), learned(0.1, 0.001, [2, 8, 32, 64])
    assert flat.efficient(0.95) > 1000
    assert steep.efficient(0.95) == 2


def test_images_that_can_be_computed_in_time() -> None:
    cost = learned(0.01, 0.05, [2, 8, 32])
    assert cost.within(0.15) == pytest.approx(10, abs=1)
    assert cost.within(0.01) == 0


def test_of_twenty_answers_nineteen_come_within_the_margin() -> None:
    random = np.random.default_rng(0)
    took = 0.2 * random.lognormal(0.1, 0.25, 4000)
    margin = Margin()
    inside = []
    for seconds in took:
        inside.append(seconds <= margin.times * 0.2)
        margin.learn(0.2, seconds)
    assert np.mean(inside[500:]) == pytest.approx(0.95, abs=0.01)


def test_what_is_over_at_once_says_nothing_of_the_margin() -> None:
    margin = Margin()
    before = margin.times
    for _ in range(100):
        margin.learn(0.001, 0.1)
    assert margin.times == before
