"""Thresholds that keep their promise on pairs not seen before, scores made comparable, views."""

from __future__ import annotations

import numpy as np
import pytest
from lookalike_extractor.calibration import ScoredPairs, calibrate, least_similarity, wilson
from lookalike_extractor.errors import FitRefused
from lookalike_extractor.normalization import extend_gallery, extend_queries, query_bias
from lookalike_extractor.views import views


def made_pairs(seed: int, photos: int = 200) -> ScoredPairs:
    """Ten pairs of each photo: three true, more alike than the false ones, with some overlap."""
    rng = np.random.default_rng(seed)
    true = np.tile(np.arange(10) < 3, photos)
    similarities = rng.normal(np.where(true, 0.7, 0.4), 0.1).astype(np.float32)
    return ScoredPairs(similarities, true, np.repeat(np.arange(photos), 10))


def precision_above(pairs: ScoredPairs, similarity: float) -> float:
    return float(pairs.true[pairs.similarities >= similarity].mean())


@pytest.mark.parametrize(("asked", "within"), [(0.90, 0.03), (0.95, 0.02), (0.99, 0.01)])
def test_unseen_pairs_have_the_precision_that_was_asked_for(asked: float, within: float) -> None:
    thresholds = [calibrate(made_pairs(seed), [asked])[0].similarity for seed in range(5)]
    reached = np.mean([precision_above(made_pairs(100 + i), t) for i, t in enumerate(thresholds)])
    assert reached == pytest.approx(asked, abs=within)


def test_the_interval_holds_the_threshold_and_shrinks_with_more_photos() -> None:
    few, many = (calibrate(made_pairs(0, photos), [0.95])[0] for photos in (40, 1000))
    assert few.low <= few.similarity <= few.high
    assert many.high - many.low < few.high - few.low


def test_recall_counts_pairs_that_the_search_did_not_return() -> None:
    pairs = made_pairs(0)
    half = ScoredPairs(pairs.similarities, pairs.true, pairs.photos, missed=int(pairs.true.sum()))
    assert calibrate(half, [0.9])[0].recall == pytest.approx(calibrate(pairs, [0.9])[0].recall / 2)


def test_a_threshold_holds_in_a_collection_that_has_grown() -> None:
    """200 queries, each with one match; what they meet besides grows with the collection."""

    def searched(seed: int, items: int) -> ScoredPairs:
        rng = np.random.default_rng(seed)
        scores = np.concatenate(
            [rng.normal(0.7, 0.15, (200, 1)), rng.normal(0.1, 0.12, (200, items))], axis=1
        )
        true = np.broadcast_to(np.arange(items + 1) == 0, scores.shape)
        return ScoredPairs(
            scores.astype(np.float32).ravel(), true.ravel(), np.repeat(np.arange(200), items + 1)
        )

    learned = [calibrate(searched(seed, 50), [0.9])[0] for seed in range(5)]
    grown = [searched(100 + seed, 4 * 50) for seed in range(5)]
    stale = np.mean([precision_above(p, t.similarity) for p, t in zip(grown, learned, strict=True)])
    weighed = np.mean([precision_above(p, t.at(4)) for p, t in zip(grown, learned, strict=True)])
    assert stale < 0.8
    assert weighed == pytest.approx(0.9, abs=0.04)


def test_a_smaller_collection_keeps_its_threshold_and_growth_only_raises_it() -> None:
    threshold = calibrate(made_pairs(0), [0.9])[0]
    assert threshold.at(0.1) == threshold.at(1) == threshold.similarity
    raised = [threshold.at(growth) for growth in (1, 2, 8, 100, 1000, 1e9)]
    assert raised == sorted(raised)
    assert raised[1] > raised[0]
    assert raised[-1] == raised[-2]


def test_a_threshold_does_not_part_equal_similarities() -> None:
    similarities = np.array([0.9, 0.8, 0.8, 0.8], np.float32)
    true = np.array([True, True, False, False])
    assert least_similarity(similarities, true, 0.9) == pytest.approx(0.9)


def test_no_threshold_is_given_where_none_is_good_enough() -> None:
    assert least_similarity(np.array([0.9, 0.8], np.float32), np.array([False, True]), 0.9) == float("inf")


def test_pairs_count_as_often_as_they_were_drawn() -> None:
    similarities, true = np.array([0.9, 0.8, 0.7], np.float32), np.array([True, False, True])
    assert least_similarity(similarities, true, 0.7) == pytest.approx(0.9)
    assert least_similarity(similarities, true, 0.7, np.array([2, 1, 1])) == pytest.approx(0.7)
    assert least_similarity(similarities, true, 0.7, np.array([0, 1, 1])) == float("inf")


def test_wilsons_interval_is_that_of_the_textbook() -> None:
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(29, 29) == pytest.approx((0.8830, 1.0), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(FitRefused, match="15 true and 35 false pairs are too few"):
        calibrate(made_pairs(0, photos=5))


def test_one_more_dimension_subtracts_the_bias() -> None:
    rng = np.random.default_rng(0)
    queries, gallery, background = (rng.normal(size=(n, 8)).astype(np.float32) for n in (4, 6, 20))
    bias = query_bias(queries, background)
    expected = queries @ gallery.T - np.sort(queries @ background.T, axis=1)[:, -3:].mean(axis=1)[:, None]
    np.testing.assert_allclose(extend_queries(queries, bias) @ extend_gallery(gallery).T, expected, atol=1e-5)


def test_ten_views_cover_the_whole_picture() -> None:
    place = np.arange(60 * 90, dtype=np.int64).reshape(60, 90, 1).repeat(3, axis=2)
    whole, *parts = views(place)  # type: ignore[arg-type]
    assert whole.shape == (60, 90, 3)
    assert [part.shape for part in parts] == [(30, 45, 3)] * 9
    assert set(np.concatenate([part[..., 0].ravel() for part in parts])) == set(range(60 * 90))


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 400)])
def test_the_smallest_pictures_have_views(size: tuple[int, int]) -> None:
    assert all(view.size for view in views(np.zeros((*size, 3), np.uint8)))
