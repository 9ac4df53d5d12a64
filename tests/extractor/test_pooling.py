from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lookalike_extractor.errors import RecipeInvalid
from lookalike_extractor.pooling import GEM_FLOOR, POOLINGS, check_pooling, join, pool
from torch import Tensor

MAP = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 8.0]]]])
"""[1, 2, 2, 2]: two channels."""


def near(one: Tensor, other: Tensor | list[list[float]]) -> bool:
    return torch.allclose(one, torch.as_tensor(other), atol=1e-5)


def test_avg_is_the_mean_of_each_channel() -> None:
    assert near(pool(MAP, "avg", 3), [[2.5, 2.0]])


def test_max_is_the_largest_of_each_channel() -> None:
    assert near(pool(MAP, "max", 3), [[4.0, 8.0]])


def test_gem_is_the_root_of_the_mean_power() -> None:
    assert near(pool(MAP, "gem", 3), [[25 ** (1 / 3), 128 ** (1 / 3)]])


def test_gem_of_power_one_is_the_mean_and_of_a_great_power_the_largest() -> None:
    assert near(pool(MAP, "gem", 1), pool(MAP, "avg", 1))
    assert torch.allclose(pool(MAP, "gem", 16), pool(MAP, "max", 1), rtol=0.1)


def test_gem_takes_what_is_negative_for_its_floor() -> None:
    assert pool(-MAP, "gem", 3).tolist() == [pytest.approx([GEM_FLOOR] * 2, rel=1e-3)]


def test_gem_of_a_dead_channel_has_a_finite_gradient() -> None:
    dead = torch.zeros(1, 1, 2, 2, requires_grad=True)
    pool(dead, "gem", 3).sum().backward()
    assert dead.grad is not None
    assert dead.grad.isfinite().all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_node_without_room_is_left_as_it_is(pooling: str) -> None:
    vectors = torch.tensor([[1.0, -2.0]])
    assert torch.equal(pool(vectors, pooling, 3), vectors)


@given(p=st.floats(1, 8), q=st.floats(1, 8), seed=st.integers(0, 99))
def test_gem_grows_with_its_power(p: float, q: float, seed: int) -> None:
    features = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    low, high = pool(features, "gem", min(p, q)), pool(features, "gem", max(p, q))
    assert (low <= high + 1e-4).all()


def test_each_node_weighs_the_same_in_the_whole() -> None:
    joined = join([torch.tensor([[3.0, 4.0]]), torch.tensor([[1000.0]])])
    assert near(joined, [[0.6 / 2**0.5, 0.8 / 2**0.5, 1 / 2**0.5]])


def test_an_unknown_pooling_answers_with_the_nearest() -> None:
    with pytest.raises(RecipeInvalid, match="Did you mean 'gem'"):
        check_pooling("gems", 3)


@pytest.mark.parametrize("p", [0.5, 0.0, -1.0, 17.0, float("nan"), float("inf")])
def test_a_power_without_sense_is_refused(p: float) -> None:
    with pytest.raises(RecipeInvalid, match="power"):
        check_pooling("gem", p)


def test_tokens_cannot_be_pooled() -> None:
    with pytest.raises(RecipeInvalid, match=r"\[1, 5, 8\]"):
        pool(torch.zeros(1, 5, 8), "avg", 1)


def test_a_strong_region_does_not_drown_the_others() -> None:
    halves = torch.zeros(1, 2, 14, 14)
    halves[:, 0, :, :7] = 1.0
    halves[:, 1, :, 7:] = 10.0
    plain, regional = (pool(halves, name, 3.0)[0] for name in ("gem", "rgem"))
    assert plain[1] / plain[0] == pytest.approx(10.0)
    assert regional[1] / regional[0] < 3.0


@pytest.mark.parametrize("name", ["rmac", "rgem"])
@pytest.mark.parametrize("size", [(7, 7), (5, 9), (1, 1), (1, 6)])
def test_regional_poolings_of_an_even_map_are_even(name: str, size: tuple[int, int]) -> None:
    pooled = pool(torch.ones(2, 4, *size), name, 3.0)
    torch.testing.assert_close(pooled, torch.full((2, 4), 0.5))


@pytest.mark.parametrize("name", ["rmac", "rgem"])
def test_regional_poolings_of_an_image_do_not_depend_on_its_neighbours(name: str) -> None:
    maps = torch.rand(7, 40, 14, 14)
    assert torch.equal(pool(maps, name, 3.0)[:2], pool(maps[:2], name, 3.0))


def test_tokens_are_pooled_with_and_without_the_class_token() -> None:
    tokens = torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]])
    assert pool(tokens, "cls", 1.0).tolist() == [[9.0, 9.0]]
    assert pool(tokens, "tokens", 1.0).tolist() == [[2.0, 3.0]]
    with pytest.raises(RecipeInvalid, match="choose one with"):
        pool(tokens, "gem", 3.0)
