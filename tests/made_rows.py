"""Items made by hand for tests of collections: few dimensions, descriptors that say where they point."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from lookalike_extractor.recipe import Space
from lookalike_server.rows import NewRow

SPACE = Space(id="space-of-4", dimension=4, recipe="by_hand")


def pointing(*values: float) -> np.ndarray:
    """A descriptor float32 [4] of length 1 whose first elements are in the ratio of `values`."""
    vector = np.zeros(4)
    vector[: len(values)] = values
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def row(item_id: str, *values: float, **attributes: Any) -> NewRow:
    return NewRow(item_id, pointing(*(values or (1.0,))), json.dumps(attributes))
