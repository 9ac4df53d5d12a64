"""The quality benchmark's metrics and splits, on made data."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "quality"


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"quality_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


metrics, suites = loaded("metrics"), loaded("suites")


def test_copies_that_are_all_found_first_score_one() -> None:
    reached = metrics.copy_detection(np.eye(12, dtype=np.float32), np.arange(12))
    assert (reached.recall_at_1, reached.micro_ap, reached.recall_at_p90) == (1, 1, 1)


def test_micro_ap_ranks_the_pairs_of_all_queries_together() -> None:
    # A stranger's 0.9 stands between the two true pairs: precisions 1/1 and 2/3.
    similarities = np.array([[1.0, 0.1], [0.2, 0.8], [0.9, 0.3]], np.float32)
    reached = metrics.copy_detection(similarities, np.array([0, 1, -1]))
    assert reached.micro_ap == pytest.approx((1 + 2 / 3) / 2)
    assert reached.recall_at_1 == 1
    assert reached.recall_at_p90 == 0.5


def test_only_ten_pairs_of_a_query_count() -> None:
    similarities = np.arange(20, dtype=np.float32)[None]
    assert metrics.copy_detection(similarities, np.array([10])).micro_ap == pytest.approx(1 / 10)
    assert metrics.copy_detection(similarities, np.array([9])).micro_ap == 0


def test_class_retrieval_leaves_out_the_image_itself_and_lonely_classes() -> None:
    rows = np.array([[1, 0], [0.9, 0.1], [0, 1], [-1, 0]], np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert metrics.class_retrieval(rows, np.array(["a", "a", "b", "c"])) == 1
    assert metrics.class_retrieval(rows, np.array(["a", "c", "b", "a"])) == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_photos_of_a_split_are_disjoint(seed: int) -> None:
    photos = [Path(f"{number}.jpg") for number in range(200)]
    dealt = suites.split(photos, seed)
    parts = [getattr(dealt, name) for name in suites.SHARES]
    assert all(parts)
    assert len(set().union(*parts)) == sum(map(len, parts))


def test_a_split_depends_on_its_seed_alone() -> None:
    photos = [Path(f"{number}.jpg") for number in range(200)]
    assert suites.split(photos, 3) == suites.split(photos[::-1], 3)
    assert suites.split(photos, 3) != suites.split(photos, 4)
