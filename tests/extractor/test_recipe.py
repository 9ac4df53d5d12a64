from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
from lookalike_extractor.errors import RecipeInvalid
from lookalike_extractor.recipe import RECIPES, Recipe, Tap, space_id

RECIPE = Recipe("mine", "resnet18", (Tap("layer4"),))
PREPROCESSING: dict[str, Any] = {"height": 224, "mean": (0.5, 0.5, 0.5)}
IDENTITY = space_id(RECIPE, "digest", PREPROCESSING)


def changed(**values: Any) -> str:
    return space_id(dataclasses.replace(RECIPE, **values), "digest", PREPROCESSING)


def test_the_default_recipe_is_for_near_duplicates() -> None:
    assert next(iter(RECIPES)) == "near_duplicate"
    assert all(name == recipe.name for name, recipe in RECIPES.items())


def test_the_built_in_recipes_share_one_forward_pass() -> None:
    assert len({(r.backbone, r.weights, r.input_size, r.resize) for r in RECIPES.values()}) == 1


def test_a_space_is_a_hash() -> None:
    assert re.fullmatch("[0-9a-f]{32}", IDENTITY)


def test_a_space_is_the_same_tomorrow() -> None:
    # Descriptors on disk are bound to it: a change of this value makes every collection unreadable.
    assert IDENTITY == "feb89bdf71322ca70e1c519b044af16e"


@pytest.mark.parametrize(
    "values", [{"name": "yours"}, {"duplicate_threshold": 0.5}, {"weights": "elsewhere.pth"}]
)
def test_a_space_does_not_depend_on_names_and_places(values: dict[str, Any]) -> None:
    assert changed(**values) == IDENTITY


@pytest.mark.parametrize(
    "values",
    [
        {"backbone": "resnet34"},
        {"taps": (Tap("layer3"),)},
        {"taps": (Tap("layer4", "avg"),)},
        {"taps": (Tap("layer4", p=4.0),)},
        {"taps": (Tap("layer4"), Tap("layer3"))},
    ],
)
def test_a_space_depends_on_what_shapes_a_descriptor(values: dict[str, Any]) -> None:
    assert changed(**values) != IDENTITY


def test_a_space_depends_on_weights_and_preprocessing() -> None:
    assert space_id(RECIPE, "another", PREPROCESSING) != IDENTITY
    assert space_id(RECIPE, "digest", PREPROCESSING | {"height": 288}) != IDENTITY


def test_the_power_of_gem_shapes_only_gem() -> None:
    assert changed(taps=(Tap("layer4", "avg", p=3.0),)) == changed(taps=(Tap("layer4", "avg", p=4.0),))


def test_a_tap_tells_its_pooling() -> None:
    assert str(Tap("layer4")) == "layer4:gem(p=3)"
    assert Tap("layer4", "max").spec == "max"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Tap(""), "no node"),
        (lambda: Tap("layer4", "mean"), "no pooling 'mean'"),
        (lambda: Tap("layer4", p=0.0), "power"),
        (lambda: dataclasses.replace(RECIPE, name=""), "no name"),
        (lambda: dataclasses.replace(RECIPE, backbone=""), "no backbone"),
        (lambda: dataclasses.replace(RECIPE, taps=()), "no taps"),
        (lambda: dataclasses.replace(RECIPE, taps=(Tap("a"), Tap("a"))), "same tap twice"),
        (lambda: dataclasses.replace(RECIPE, resize="stretch"), "'squash' or 'crop'"),
        (lambda: dataclasses.replace(RECIPE, input_size=(0, 8)), "input size"),
        (lambda: dataclasses.replace(RECIPE, duplicate_threshold=1.5), "1.5"),
    ],
)
def test_an_impossible_recipe_cannot_be_made(make: Callable[[], object], told: str) -> None:
    with pytest.raises(RecipeInvalid, match=told):
        make()
