"""Fitting a recipe to photos, on a backbone of two convolutions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lookalike_extractor import fitting
from lookalike_extractor.artifacts import Artifact, load_artifact, packaged_artifacts, save_artifact
from lookalike_extractor.backbones import Backbone, load_backbone
from lookalike_extractor.descriptor import DescriptorModel
from lookalike_extractor.errors import ArtifactInvalid, FitRefused, RecipeInvalid
from lookalike_extractor.fitting import FitSettings, fit_recipe, trial
from lookalike_extractor.preprocessing import Preprocessing
from lookalike_extractor.recipe import RECIPES, Recipe, Tap
from lookalike_extractor.whitening import Floats, fit_pca
from photos import distinct_photos, photo
from torch import nn

SETTINGS = FitSettings(copies=2, dimension=8, families=("flip", "grey", "jitter"))


def tiny_backbone(name: str, weights: str | None = None) -> Backbone:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 24, 5, 4), nn.ReLU(), nn.Conv2d(24, 16, 3, 2), nn.ReLU()).eval()
    return Backbone(name, module, Preprocessing(32, 32, "squash", (0.5,) * 3, (0.2,) * 3), "ab" * 32)


RECIPE = Recipe("tiny", "tiny", (Tap("1", "gem"), Tap("3", "avg")))


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "load_backbone", tiny_backbone)


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eighty different pieces of real photos."""
    folder, rng = tmp_path_factory.mktemp("album"), np.random.default_rng(0)
    for number in range(80):
        whole = photo(distinct_photos()[number % len(distinct_photos())])
        side = min(whole.size) // 2
        left, top = (int(rng.integers(length - side + 1)) for length in whole.size)
        whole.crop((left, top, left + side, top + side)).resize((64, 64)).save(folder / f"{number:02}.png")
    return sorted(folder.iterdir())


@pytest.mark.usefixtures("_tiny")
def test_a_fit_serves_the_recipe_that_it_was_made_for(album: list[Path], tmp_path: Path) -> None:
    fit = fit_recipe(RECIPE, album, SETTINGS)
    assert (fit.artifact.facts["photos"], fit.unreadable) == (64, {})
    save_artifact(fit.artifact, tmp_path / "fit")
    fitted = Recipe("fitted", "tiny", RECIPE.taps, whitening=str(tmp_path / "fit"))
    model = DescriptorModel(tiny_backbone("tiny"), [RECIPE, fitted])
    assert (model.spaces["tiny"].dimension, model.spaces["fitted"].dimension) == (40, 16)
    assert model.spaces["tiny"].id != model.spaces["fitted"].id
    with torch.inference_mode():
        rows = model(torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8))["fitted"]
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))


@pytest.mark.usefixtures("_tiny")
def test_the_same_photos_elsewhere_give_the_same_fit(album: list[Path], tmp_path: Path) -> None:
    for path in album:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    moved = sorted(tmp_path.iterdir(), reverse=True)
    fits = [fit_recipe(RECIPE, photos, SETTINGS).artifact.digest for photos in (album, moved)]
    assert fits[0] == fits[1]


@pytest.mark.usefixtures("_tiny")
def test_unreadable_photos_are_left_out_and_named(album: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(album[0].read_bytes()[:100])
    fit = fit_recipe(RECIPE, [*album, bad, tmp_path / "gone.jpg"], SETTINGS)
    assert set(fit.unreadable) == {bad, tmp_path / "gone.jpg"}


@pytest.mark.usefixtures("_tiny")
def test_too_few_photos_are_refused(album: list[Path]) -> None:
    with pytest.raises(FitRefused, match="10 readable photos are too few"):
        fit_recipe(RECIPE, album[:10], SETTINGS)


def test_settings_that_make_no_copies_are_refused() -> None:
    with pytest.raises(FitRefused, match="0 copies"):
        FitSettings(copies=0)
    with pytest.raises(RecipeInvalid, match="Did you mean 'crop'"):
        FitSettings(families=("crup",))


def test_a_fit_that_would_harm_is_refused_with_its_numbers() -> None:
    rng = np.random.default_rng(0)
    originals: Floats = rng.normal(size=(100, 20)).astype(np.float32)
    copies = originals[:, None] + 0.1 * rng.normal(size=(100, 2, 20)).astype(np.float32)
    noise = fit_pca(rng.normal(size=(100, 20)).astype(np.float32) * 1e-4 + 1, 2)
    harmful = Artifact("tiny", "ab" * 32, ("1:avg",), (noise,))
    with pytest.raises(FitRefused, match=r"would harm: of 40 copies .* 100\.0% find"):
        trial([originals], [copies], harmful, np.arange(100) % 5 == 0)


def test_the_packaged_fits_are_whole_and_belong_to_their_recipes() -> None:
    for recipe in RECIPES.values():
        if recipe.whitening is not None:
            artifact = load_artifact(recipe.whitening)
            digest = load_backbone(recipe.backbone).weights_digest
            artifact.check(recipe.backbone, digest, [str(tap) for tap in recipe.taps])
            assert artifact.facts["found_after"] > artifact.facts["found_before"]
    assert set(packaged_artifacts()) == {recipe.whitening for recipe in RECIPES.values()} - {None}


def test_a_recipe_with_a_fit_of_other_taps_is_refused() -> None:
    recipe = Recipe("mine", "efficientnet_lite0", (Tap("head"),), whitening="near_duplicate")
    with pytest.raises(ArtifactInvalid, match="fit it again"):
        DescriptorModel(load_backbone("efficientnet_lite0"), [recipe])
