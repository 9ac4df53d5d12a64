"""The quality benchmark's metrics and splits, on made data."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "quality"


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"quality_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


metrics, suites = loaded("metrics"), loaded("suites")
sys.modules.setdefault("metrics", metrics)  # as the scripts import it
sys.modules.setdefault("suites", suites)
landmarks, disc21 = loaded("landmarks"), loaded("disc21")
for name in ("features", "methods"):
    sys.modules.setdefault(name, loaded(name))
calibrating = loaded("calibrating")


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


def test_the_equal_error_rate_is_where_both_errors_meet() -> None:
    true, false = np.array([0.9, 0.8, 0.7, 0.3]), np.array([0.6, 0.4, 0.2, 0.1])
    told = metrics.verification(true, false, (0.0, 0.25, 0.5))
    # From .4 on one of four true pairs is rejected; over .4 one of four false ones is accepted.
    assert told.equal_error_rate == pytest.approx(0.25)
    assert told.accepted == pytest.approx((0.75, 0.75, 1.0))
    assert metrics.verification(true, false, (1.0,)).accepted == (1.0,)
    assert metrics.verification(true, np.array([0.0])).equal_error_rate == 0


def test_revisited_average_precision_is_taken_by_trapezia() -> None:
    # Hits first and third of two: (1 + 1) / 2 and (1/2 + 2/3) / 2.
    assert landmarks.average_precision([True, False, True], 2) == pytest.approx((1 + 7 / 12) / 2)
    assert landmarks.average_precision([True], 2) == pytest.approx(0.5)
    assert landmarks.average_precision([False, False], 1) == 0


def test_revisited_protocols_leave_out_what_they_ignore() -> None:
    truth = [
        {"easy": [0], "hard": [1], "junk": [2]},
        {"easy": [], "hard": [3], "junk": []},
    ]
    ranks = np.array([[2, 4, 1, 0, 3], [3, 0, 1, 2, 4]])
    # Easy: 4, 0, 3 are left of the first query, which alone has something to find: (0 + 1/2) / 2.
    assert landmarks.mean_average_precision(ranks, truth, "easy") == pytest.approx(1 / 4)
    # Hard: 4, 1, 3 of the first, the second is perfect.
    assert landmarks.mean_average_precision(ranks, truth, "hard") == pytest.approx((1 / 4 + 1) / 2)
    # Medium: 4, 1, 0, 3 of the first: (0 + 1/2) / 2 and (1/2 + 2/3) / 2, of two.
    assert landmarks.mean_average_precision(ranks, truth, "medium") == pytest.approx(
        ((1 / 4 + 7 / 12) / 2 + 1) / 2
    )


def test_revisited_queries_are_cropped_to_the_building() -> None:
    image = Image.new("RGB", (100, 80))
    image.paste("red", (10, 20, 60, 70))
    assert np.asarray(landmarks.cropped(image, [10.2, 19.8, 60, 70])).min(axis=(0, 1)).tolist() == [255, 0, 0]


def test_a_ground_truth_that_is_a_program_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gnd.pkl"
    file.write_bytes(pickle.dumps({"gnd": [{"easy": np.array([1]), "bbx": [1.0]}], "imlist": ["a"]}))
    assert landmarks.read_truth(file)["imlist"] == ["a"]
    file.write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(pickle.UnpicklingError, match="not data"):
        landmarks.read_truth(file)


def test_disc21_ranks_queries_without_a_match_too(tmp_path: Path) -> None:
    file = tmp_path / "truth.csv"
    file.write_text("query_id,reference_id\nQ1,R2\nQ2,\nQ3,R1\n")
    truth = disc21.read_truth(file)
    assert truth == {"Q1": "R2", "Q3": "R1"}
    # .9 is true, .8 of the query without a match, .7 is true: precisions 1 and 2/3.
    similarities = np.array([[0.1, 0.9], [0.8, 0.2], [0.7, 0.3]], np.float32)
    reached = disc21.detect(similarities, ["Q1", "Q2", "Q3"], ["R1", "R2"], truth)
    assert reached.micro_ap == pytest.approx((1 + 2 / 3) / 2)
    with pytest.raises(ValueError, match="'R9'"):
        disc21.detect(similarities, ["Q1", "Q2", "Q3"], ["R1", "R2"], {"Q1": "R9"})


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


def test_calibration_counts_strangers_and_photos_as_they_are() -> None:
    rng = np.random.default_rng(0)
    rows = {name: rng.normal(size=(size, 8)) for name, size in (("originals", 12), ("distractors", 20))}
    rows |= {
        "originals unseen": np.repeat(rows["originals"], 4, axis=0),
        "strangers": rng.normal(size=(9, 8)),
    }
    rows["strangers unseen"] = np.repeat(rows["strangers"], 4, axis=0)
    copies = calibrating.unseen_trial(rows.__getitem__, "originals")
    assert copies.similarities.shape == (48 + 16, 32)
    assert list(copies.matches) == [number // 4 for number in range(48)] + [-1] * 16
    plain = calibrating.unseen_trial(rows.__getitem__, "originals", plain=2, items=15)
    assert plain.similarities.shape == (48 + 6 + 16 + 2, 15)
    assert list(plain.matches[48:54]) == [0, 2, 4, 6, 8, 10]
    own = plain.similarities[np.arange(54), plain.matches[:54]]
    assert np.allclose(own, np.square(rows["originals"][plain.matches[:54]]).sum(axis=1))
