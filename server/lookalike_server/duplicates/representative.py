"""Which item of a group is worth keeping: an order over the items, best first."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from .candidates import Floats, Rows


class Policy(enum.Enum):
    """How representatives are chosen.

    Among equals, the item with the shortest id is chosen, since copies tend to have longer names; then the
    smallest.
    """

    LARGEST = "largest"  # most pixels, then most bytes
    OLDEST = "oldest"  # smallest "modified"
    MOST_CONNECTED = "most_connected"  # most similar to the others of its group
    SHARPEST = "sharpest"  # largest "sharpness"
    MAX = "max"  # largest value of an attribute that the caller names
    MIN = "min"  # smallest value of it


def best_first(
    ids: Sequence[str], attributes_json: Sequence[str], policy: Policy, attribute: str = ""
) -> Rows:
    """The items' rows, best representative first: [n]. It depends on the items only, not on their order.

    An item whose attributes lack what the policy asks for comes after those that have it. MOST_CONNECTED
    needs the descriptors of a group (`most_connected_first`); until then it is the order of the ids.
    attribute: for MAX and MIN, a path as "size.width".
    """
    by_id = np.array(sorted(range(len(ids)), key=lambda row: (len(ids[row]), ids[row])), np.int64)
    if policy is Policy.MOST_CONNECTED:
        return by_id
    key = _key(policy, attribute)
    keys = np.array([key(json.loads(text or "{}")) for text in attributes_json], np.float64)
    keys = keys.reshape(len(ids), 2)[by_id]
    return by_id[np.lexsort((keys[:, 1], keys[:, 0]))]  # stable, so equals stay in the order of their ids


def _key(policy: Policy, attribute: str) -> Callable[[dict[str, object]], tuple[float, float]]:
    """What to sort by: the smallest is the best."""
    if policy is Policy.LARGEST:
        return _size
    path, sign = {
        Policy.OLDEST: ("modified", 1),
        Policy.SHARPEST: ("sharpness", -1),
        Policy.MAX: (attribute, -1),
        Policy.MIN: (attribute, 1),
    }[policy]
    *outer, name = path.split(".")

    def key(attributes: dict[str, object]) -> tuple[float, float]:
        for step in outer:
            inner = attributes.get(step)
            attributes = inner if isinstance(inner, dict) else {}
        return _number(attributes, name, sign * math.inf) * sign, 0

    return key


def _size(attributes: dict[str, object]) -> tuple[float, float]:
    pixels = _number(attributes, "width", 0) * _number(attributes, "height", 0)
    return -pixels, -_number(attributes, "bytes", 0)


def _number(attributes: dict[str, object], name: str, missing: float) -> float:
    """A finite number from attributes that anybody may have written, or `missing`."""
    value = attributes.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return missing
    try:
        return float(value) if math.isfinite(value) else missing
    except OverflowError:  # an integer of more than 308 digits
        return missing


def most_connected_first(descriptors: Floats, rows: Rows, weights: Rows) -> npt.NDArray[np.int64]:
    """Positions in `rows`, the one most similar to all others first, equals in their given order: [k].

    weights: [k], how many items each row stands for. The sum of a descriptor's similarities to all others is
    its product with their sum, so this takes k products and not k squared.
    """
    total = np.zeros(descriptors.shape[1], np.float64)
    for row, weight in zip(rows, weights, strict=True):
        total += descriptors[row].astype(np.float64) * weight
    similarity = np.array([descriptors[row] @ total for row in rows])
    return np.argsort(-np.round(similarity, 6), kind="stable")  # rounding noise decides nothing
