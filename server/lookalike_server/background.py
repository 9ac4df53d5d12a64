"""A collection's background: descriptors of pictures that match nothing in it. Everything here blocks."""

from __future__ import annotations

import base64
import json

import numpy as np
from lookalike_extractor.normalization import TOP
from numpy.typing import NDArray

from lookalike_server.calibrations import forget_normalized
from lookalike_server.collection import Collection
from lookalike_server.errors import ArgumentInvalid, NoBackground
from lookalike_server.rows import unit

MOST_ROWS = 1000
_DOCUMENT = "background"


def set_background(collection: Collection, rows: NDArray[np.float32]) -> None:
    """Keeps rows float32 [n, d], scaled to length 1; none removes the background.

    A calibration of normalised scores is forgotten. Raises ArgumentInvalid, DescriptorInvalid.
    """
    if len(rows) and not TOP <= len(rows) <= MOST_ROWS:
        raise ArgumentInvalid(
            f"descriptors holds {len(rows)} rows; a background has {TOP} to {MOST_ROWS}, better 100.",
            field="descriptors",
        )
    for i, row in enumerate(rows):
        collection.check_dimension(row, f"descriptors[{i}]")
    units = np.array([unit(row) for row in rows], "<f4")
    text = json.dumps(base64.b64encode(units.tobytes()).decode()) if len(rows) else ""
    collection.set_document(_DOCUMENT, text)
    forget_normalized(collection)


def get_background(collection: Collection) -> NDArray[np.float32]:
    """Returns float32 [n, d]. Raises NoBackground."""
    text = collection.get_document(_DOCUMENT)
    if text is None:
        raise NoBackground(
            f"Collection {collection.name!r} has no background, so its scores cannot be normalised; run: "
            f"lookalike calibrate --collection {collection.name} --background FOLDER",
            collection=collection.name,
        )
    return np.frombuffer(base64.b64decode(json.loads(text)), "<f4").reshape(-1, collection.space.dimension)
