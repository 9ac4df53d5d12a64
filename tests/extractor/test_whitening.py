"""Whitening: its laws, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lookalike_extractor.artifacts import Artifact, load_artifact, rounded, save_artifact
from lookalike_extractor.errors import ArtifactInvalid, FitRefused
from lookalike_extractor.whitening import Floats, Whitening, fit_pairs, fit_pca

CHANNELS = 40


def made_features(photos: int = 300, copies: int = 3, seed: int = 0) -> tuple[Floats, Floats]:
    """Photos that differ in ten quiet channels, their copies in ten loud ones: [n, c], [n, k, c]."""
    rng = np.random.default_rng(seed)
    originals = 5 + rng.normal(size=(photos, CHANNELS)) * 0.01
    originals[:, :10] += rng.normal(size=(photos, 10)) * 0.2
    copies_of = np.repeat(originals[:, None], copies, axis=1)
    copies_of[..., 10:20] += rng.normal(size=(photos, copies, 10)) * 1.0
    return originals.astype(np.float32), copies_of.astype(np.float32)


def found_first(queries: Floats, gallery: Floats) -> float:
    return float(((queries @ gallery.T).argmax(axis=1) == np.arange(len(gallery))).mean())


def test_whitened_features_vary_equally_in_all_directions() -> None:
    originals, _ = made_features()
    whitening = fit_pca(originals, 10, ridge=0.0)
    unit = originals / np.linalg.norm(originals, axis=1, keepdims=True)
    covariance = np.cov((unit - whitening.mean) @ whitening.projection, rowvar=False)
    np.testing.assert_allclose(covariance, np.eye(10), atol=1e-3)


def test_power_zero_only_turns() -> None:
    originals, _ = made_features()
    projection = fit_pca(originals, 10, power=0.0).projection
    np.testing.assert_allclose(projection.T @ projection, np.eye(10), atol=1e-5)


def test_a_ridge_keeps_noise_down() -> None:
    originals, _ = made_features()
    originals[:, 30:] = 5 + (originals[:, 30:] - 5) / 1000
    loudest = [np.abs(fit_pca(originals, 39, ridge).projection).max() for ridge in (0.0, 0.1)]
    assert loudest[0] > 100 * loudest[1]


def test_pairs_teach_to_pass_over_what_copying_changes() -> None:
    originals, copies = made_features()
    unseen, unseen_copies = made_features(seed=1)
    learned, plain = fit_pairs(originals, copies, 10), fit_pca(originals, 10, power=0.0)
    assert found_first(learned(unseen_copies[:, 0]), learned(unseen)) > 0.9
    assert found_first(plain(unseen_copies[:, 0]), plain(unseen)) < 0.9


def test_descriptors_have_length_one_whatever_the_length_of_the_features() -> None:
    originals, copies = made_features()
    whitening = fit_pairs(originals, copies, 10)
    np.testing.assert_allclose(np.linalg.norm(whitening(originals), axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(whitening(originals * 100), whitening(originals), atol=1e-4)


def test_fitting_twice_gives_the_same() -> None:
    first, again = (fit_pairs(*made_features(), 10) for _ in range(2))
    np.testing.assert_array_equal(first.projection, again.projection)


def test_too_few_rows_are_refused_with_the_number_needed() -> None:
    originals, _ = made_features(photos=30)
    with pytest.raises(FitRefused, match=r"30 descriptors are too few .* 64 or more"):
        fit_pca(originals, 10)


def test_photos_that_are_all_alike_are_refused() -> None:
    originals, _ = made_features(photos=1)
    with pytest.raises(FitRefused, match="all alike"):
        fit_pca(np.repeat(originals, 200, axis=0), 10)
    with pytest.raises(FitRefused, match="alike"):
        fit_pairs(np.repeat(originals, 200, axis=0), np.repeat(originals[:, None], 200, axis=0), 10)
    with pytest.raises(FitRefused, match="the copies equal their originals"):
        fit_pairs(made_features()[0], made_features()[0][:, None], 10)


def test_constant_channels_do_no_harm() -> None:
    originals, copies = made_features()
    originals[:, 30:], copies[..., 30:] = 0, 0
    assert np.isfinite(fit_pairs(originals, copies, 10).projection).all()
    with pytest.raises(FitRefused, match="only 30 of 40 channels vary"):
        fit_pca(originals, 35)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    originals, _ = made_features()
    originals[7, 3] = bad
    with pytest.raises(FitRefused, match="1 of 300 descriptors"):
        fit_pca(originals, 10)


@pytest.mark.parametrize("dimension", [0, CHANNELS + 1])
def test_more_dimensions_than_channels_are_refused(dimension: int) -> None:
    with pytest.raises(FitRefused, match="ask for 1 to 40"):
        fit_pca(made_features()[0], dimension)


def made_artifact() -> Artifact:
    return Artifact(
        "some_net", "ab" * 32, ("a:gem(p=3)",), (rounded(fit_pca(made_features()[0], 10)),), {"photos": 300}
    )


def test_an_artifact_comes_back_as_it_was(tmp_path: Path) -> None:
    made = made_artifact()
    save_artifact(made, tmp_path / "fit.safetensors")
    again = load_artifact(str(tmp_path / "fit.safetensors"))
    assert (again.taps, again.facts, again.digest, again.dimension) == (
        made.taps,
        made.facts,
        made.digest,
        10,
    )
    np.testing.assert_array_equal(again.whitenings[0].projection, made.whitenings[0].projection)


def test_one_artifact_has_one_file(tmp_path: Path) -> None:
    save_artifact(made_artifact(), tmp_path / "a")
    save_artifact(made_artifact(), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_rounding_hardly_moves_a_descriptor() -> None:
    originals, copies = made_features()
    exact: Whitening = fit_pairs(originals, copies, 10)
    assert (exact(originals) * rounded(exact)(originals)).sum(axis=1).min() > 1 - 1e-5


def test_a_damaged_artifact_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    save_artifact(made_artifact(), path)
    intact = path.read_bytes()
    start = 8 + int.from_bytes(intact[:8], "little")  # where the header ends and the tensors begin
    flipped = intact[:start] + bytes([intact[start] ^ 1]) + intact[start + 1 :]
    for damaged in (intact[:-10], flipped, b"", b"not an artifact"):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactInvalid, match="damaged"):
            load_artifact(str(path))


def test_an_artifact_of_another_network_is_refused() -> None:
    with pytest.raises(ArtifactInvalid, match="fitted for the backbone some_net, the recipe has other_net"):
        made_artifact().check("other_net", "ab" * 32, ["a:gem(p=3)"])
    with pytest.raises(ArtifactInvalid, match="taps"):
        made_artifact().check("some_net", "ab" * 32, ["b:gem(p=3)"])
    with pytest.raises(ArtifactInvalid, match="fit it again"):
        made_artifact().check("some_net", "cd" * 32, ["a:gem(p=3)"])


def test_a_missing_artifact_says_how_to_make_one() -> None:
    with pytest.raises(ArtifactInvalid, match="lookalike fit"):
        load_artifact("nowhere")
