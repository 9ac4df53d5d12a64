"""Copies of photos as people make them."""

from __future__ import annotations

import numpy as np
import pytest
from lookalike_extractor.copies import FAMILIES, random_copy, seeded
from lookalike_extractor.edits import (
    LONGEST_SIDE,
    caption,
    composite,
    crop,
    downscale,
    flip,
    screenshot,
    workable,
)
from lookalike_extractor.errors import RecipeInvalid
from lookalike_extractor.unseen import UNSEEN, erase, frame, letterbox, posterise
from photos import photo
from PIL import Image, ImageChops

EVERY = {**FAMILIES, **UNSEEN}


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and ImageChops.difference(a, b).getbbox() is None


@pytest.mark.parametrize("family", EVERY)
def test_one_seed_makes_one_copy(family: str) -> None:
    first, again = (EVERY[family](photo("coffee"), seeded(3, family), photo("rocket")) for _ in range(2))
    assert same(first, again)
    assert not same(first, photo("coffee"))


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 5)])
def test_the_smallest_pictures_have_copies_too(family: str, size: tuple[int, int]) -> None:
    copy = EVERY[family](Image.new("RGB", size, "red"), seeded(0), Image.new("RGB", size))
    assert copy.mode == "RGB"
    assert min(copy.size) >= 1


def test_a_generator_depends_on_its_key_alone() -> None:
    assert seeded(1, "a", 2).random() == seeded(1, "a", 2).random()
    assert len({seeded(*key).random() for key in [(1, "a"), (2, "a"), (1, "b"), (1, "a", 0)]}) == 4


def test_copies_of_one_photo_differ_by_seed() -> None:
    copies = [random_copy(photo("coffee"), seeded(seed), photo("rocket")) for seed in range(6)]
    assert len({copy.tobytes() for copy in copies}) == 6


def test_only_the_families_asked_for_are_used() -> None:
    only_flipped = random_copy(photo("chelsea"), seeded(0), photo("rocket"), families=["flip"])
    assert same(only_flipped, flip(workable(photo("chelsea"))))


def test_no_edit_belongs_to_both_tables() -> None:
    assert set(FAMILIES).isdisjoint(UNSEEN)
    with pytest.raises(RecipeInvalid, match="there is no family of edits 'flip'; there are frame"):
        random_copy(photo("chelsea"), seeded(0), photo("rocket"), ["flip"], edits=UNSEEN)


def test_unseen_edits_keep_what_they_promise() -> None:
    image = Image.new("RGB", (200, 100), (200, 30, 90))
    assert frame(image, 0.1, seeded(0)).size == (220, 120)
    assert letterbox(image, 1.0).size == (200, 200)
    assert letterbox(image, 4.0).size == (400, 100)
    assert len(np.unique(np.asarray(posterise(photo("coffee"), 1)))) <= 2
    painted = np.asarray(erase(image, 0.1, seeded(0))) != np.asarray(image)
    assert 0.09 < painted.any(axis=2).mean() < 0.22


@pytest.mark.parametrize("families", [["flop"], []])
def test_an_unknown_family_is_refused_with_those_that_exist(families: list[str]) -> None:
    with pytest.raises(RecipeInvalid, match="flip"):
        random_copy(photo("chelsea"), seeded(0), photo("rocket"), families)


def test_edits_keep_what_they_promise() -> None:
    image = Image.new("RGB", (400, 200), "red")
    assert np.prod(crop(image, 0.25, seeded(0)).size) == pytest.approx(0.25 * 400 * 200, rel=0.02)
    assert downscale(image, 64).size == (64, 32)
    assert downscale(image, 900).size == (400, 200)
    assert caption(image, 0.2, seeded(0)).size == (400, 240)
    assert screenshot(image, seeded(0)).width == 360
    pasted = np.asarray(composite(image, Image.new("RGB", (800, 800)), 0.5, seeded(0)))
    assert (pasted[..., 0] > 200).mean() == pytest.approx(0.5 * 0.25, rel=0.02)


def test_large_photos_are_made_smaller_and_left_as_they_were() -> None:
    large = Image.new("L", (3000, 1500))
    assert workable(large).size == (LONGEST_SIDE, LONGEST_SIDE // 2)
    assert (large.size, large.mode) == ((3000, 1500), "L")
