"""Which score means which precision: learned from pairs, kept with the collection, used by searches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lookalike.v1 import calibration_pb2 as pb
from lookalike_extractor.errors import FitRefused
from lookalike_server.calibrations import least_score
from lookalike_server.catalog import Catalog
from lookalike_server.errors import ArgumentInvalid, CollectionUnknown, MessageTooLarge, NotCalibrated
from lookalike_server.services.calibration import CalibrationServicer
from made_rows import SPACE, row


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path) as catalog:
        catalog.create("shop", SPACE).upsert([row("a", 1, 0), row("b", 0, 1)])
        yield catalog


def made_pairs(count: int = 1000) -> pb.ScoredPairs:
    """A third of them the same picture, at higher scores; four pairs of each picture."""
    rng = np.random.default_rng(0)
    same = rng.random(count) < 1 / 3
    scores = rng.normal(np.where(same, 0.7, 0.4), 0.1)
    return pb.ScoredPairs(scores=scores, same=same, pictures=np.arange(count) // 4, missed=10)


def set_calibration(catalog: Catalog, **fields: Any) -> pb.Calibration:
    request = pb.SetCalibrationRequest(**{"collection": "shop", "pairs": made_pairs(), **fields})
    return asyncio.run(CalibrationServicer(catalog).SetCalibration(request, None)).calibration


def get_calibration(catalog: Catalog) -> pb.Calibration:
    request = pb.GetCalibrationRequest(collection="shop")
    return asyncio.run(CalibrationServicer(catalog).GetCalibration(request, None)).calibration


def test_what_was_learned_outlives_the_server(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        catalog.create("shop", SPACE).upsert([row("a")])
        learned = set_calibration(catalog, precisions=[0.99, 0.9])
    with Catalog(tmp_path) as catalog:
        assert get_calibration(catalog) == learned
    assert [threshold.precision for threshold in learned.thresholds] == [0.9, 0.99]
    assert (learned.item_count, learned.missed_pairs) == (1, 10)
    assert learned.same_pairs + learned.different_pairs == 1000


def test_a_threshold_comes_with_what_it_reached_and_how_sure_that_is(catalog: Catalog) -> None:
    pairs = made_pairs()
    (threshold,) = set_calibration(catalog, precisions=[0.95]).thresholds
    above = np.array(pairs.scores) >= np.float32(threshold.min_score)
    same = np.array(pairs.same)
    assert threshold.reached == pytest.approx(same[above].mean())
    assert threshold.recall == pytest.approx((same & above).sum() / (same.sum() + 10))
    assert threshold.reached_low < threshold.reached < threshold.reached_high
    assert threshold.min_score_low <= threshold.min_score <= threshold.min_score_high


def test_the_first_threshold_for_as_much_or_more_is_taken(catalog: Catalog) -> None:
    learned = set_calibration(catalog)
    shop = catalog.get("shop")
    assert [least_score(shop, p) for p in (0.5, 0.9, 0.91, 0.99)] == [
        learned.thresholds[i].min_score for i in (0, 0, 1, 2)
    ]


def test_a_collection_that_has_grown_asks_for_a_higher_score(catalog: Catalog) -> None:
    set_calibration(catalog, precisions=[0.9])
    shop = catalog.get("shop")
    before = least_score(shop, 0.9)
    shop.upsert([row(f"new{number}", 1, number) for number in range(6)])
    assert least_score(shop, 0.9) > before
    told = get_calibration(catalog)
    assert told.thresholds[0].current_score == least_score(shop, 0.9)
    assert told.thresholds[0].min_score == before
    assert (told.item_count, told.current_item_count) == (2, 8)
    kept = json.loads(shop.get_document("calibration") or "")
    del kept["thresholds"][0]["grown"]  # as collections were calibrated before
    shop.set_document("calibration", json.dumps(kept))
    assert least_score(shop, 0.9) == before


def test_a_precision_that_no_score_reaches_is_kept_as_such_and_refused(catalog: Catalog) -> None:
    pairs = made_pairs()
    best = int(np.argmax(pairs.scores))
    pairs.same[best] = False
    learned = set_calibration(catalog, pairs=pairs, precisions=[0.9, 0.99999])
    assert not learned.thresholds[1].HasField("min_score")
    assert get_calibration(catalog) == learned
    with pytest.raises(NotCalibrated, match=r"calibrated for 0\.9\."):
        least_score(catalog.get("shop"), 0.99)


def test_an_uncalibrated_collection_says_what_to_run(catalog: Catalog) -> None:
    with pytest.raises(NotCalibrated, match="lookalike calibrate --collection shop"):
        get_calibration(catalog)
    with pytest.raises(NotCalibrated):
        least_score(catalog.get("shop"), 0.9)


@pytest.mark.parametrize(
    ("fields", "error", "word"),
    [
        ({"collection": "shoe"}, CollectionUnknown, "shop"),
        ({"pairs": pb.ScoredPairs()}, FitRefused, "0 true and 0 false pairs are too few"),
        ({"pairs": made_pairs(60)}, FitRefused, "too few"),
        ({"pairs": pb.ScoredPairs(scores=[0.5], same=[])}, ArgumentInvalid, "pairs.same holds 0"),
        ({"pairs": pb.ScoredPairs(scores=[float("nan")], same=[True])}, ArgumentInvalid, "no numbers"),
        ({"precisions": [0.9, 1.0]}, ArgumentInvalid, r"precisions\[1\] is 1"),
        ({"precisions": [float("nan")]}, ArgumentInvalid, "precision"),
        ({"precisions": [0.5] * 101}, MessageTooLarge, "precisions holds 101"),
    ],
)
def test_pairs_that_nothing_can_be_learned_from_are_refused(
    catalog: Catalog, fields: dict[str, Any], error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word):
        set_calibration(catalog, **fields)
