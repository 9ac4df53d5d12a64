"""A collection's calibration: which score means which precision. Kept beside its items, read by searches and
duplicate jobs. Everything here blocks.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lookalike_extractor.calibration import ScoredPairs, Threshold, calibrate

from lookalike_server.collection import Collection
from lookalike_server.errors import ArgumentInvalid, NotCalibrated

_DOCUMENTS = {False: "calibration", True: "calibration.normalized"}


@dataclass(frozen=True)
class Calibration:
    """The thresholds of a collection, by ascending precision, and where they come from.

    Attributes:
        same, different: pairs that it was set with.
        missed: pairs of the same picture that the search did not return.
        items: of the collection when it was set.
        created: POSIX seconds.
        normalized: whether it is of searches with score normalisation.
    """

    thresholds: tuple[Threshold, ...]
    same: int
    different: int
    missed: int
    items: int
    created: float
    normalized: bool = False

    def scores(self, items: int) -> list[float]:
        """The least score of each threshold in a collection of so many items; infinite: there is none."""
        growth = items / max(1, self.items)
        return [threshold.at(growth) for threshold in self.thresholds]


def set_calibration(
    collection: Collection, pairs: ScoredPairs, precisions: Sequence[float], normalized: bool = False
) -> Calibration:
    """Learns thresholds from pairs of the collection and keeps them. Raises FitRefused for too few pairs."""
    same = int(pairs.true.sum())
    calibration = Calibration(
        tuple(calibrate(pairs, sorted(set(precisions)))),
        same,
        len(pairs.true) - same,
        pairs.missed,
        collection.count,
        time.time(),
        normalized,
    )
    collection.set_document(_DOCUMENTS[normalized], json.dumps(_finite(asdict(calibration))))
    return calibration


def get_calibration(collection: Collection, normalized: bool = False) -> Calibration:
    """Returns what was kept. Raises NotCalibrated."""
    text = collection.get_document(_DOCUMENTS[normalized])
    if text is None:
        raise NotCalibrated(
            f"Collection {collection.name!r} is not calibrated, so no score is known to mean a precision; "
            f"run: lookalike calibrate --collection {collection.name}{' --normalize' if normalized else ''}",
            collection=collection.name,
        )
    fields = json.loads(text)
    return Calibration(tuple(map(_threshold, fields.pop("thresholds"))), **fields)


def forget_normalized(collection: Collection) -> None:
    """Drops the thresholds of normalised scores, since they mean something else now."""
    collection.set_document(_DOCUMENTS[True], "")


def least_score(
    collection: Collection, precision: float, field: str = "min_precision", *, normalized: bool = False
) -> float:
    """Returns the least score that means the precision in the collection as large as it is now: the first
    threshold for as much or more.

    Raises ArgumentInvalid, with the field, unless 0 < precision < 1; NotCalibrated.
    """
    check_precision(precision, field)
    calibration = get_calibration(collection, normalized)
    now = calibration.scores(collection.count)
    scores = {t.precision: score for t, score in zip(calibration.thresholds, now, strict=True)}
    fitting = [score for reached, score in scores.items() if reached >= precision]
    if fitting and math.isfinite(fitting[0]):
        return fitting[0]
    known = ", ".join(f"{reached:g}" for reached, score in scores.items() if math.isfinite(score))
    raise NotCalibrated(
        f"Collection {collection.name!r} has no score for a precision of {precision:g}; it is calibrated for "
        f"{known or 'none'}. Ask for less, or calibrate it with --precision {precision:g} and more pairs.",
        collection=collection.name,
        field=field,
    )


def check_precision(precision: float, field: str) -> None:
    """Raises ArgumentInvalid unless 0 < precision < 1."""
    if not 0 < precision < 1:  # NaN too
        raise ArgumentInvalid(
            f"{field} is {precision}; a precision lies between 0 and 1, as 0.95.", field=field
        )


def _threshold(row: dict[str, Any]) -> Threshold:
    grown = tuple(map(_or_infinity, row.pop("grown", ())))
    return Threshold(**{key: _or_infinity(value) for key, value in row.items()}, grown=grown)


def _or_infinity(value: float | None) -> float:
    return math.inf if value is None else value


def _finite(value: Any) -> Any:
    """JSON has no infinity: null stands for it."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if value == math.inf else value
