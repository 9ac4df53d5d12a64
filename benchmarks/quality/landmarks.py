"""Revisited Oxford and Paris (Radenovic et al., CVPR 2018): mean average precision of three protocols.

    python benchmarks/quality/landmarks.py IMAGES gnd_roxford5k.pkl [--recipe semantic]

IMAGES holds the dataset's jpg files. Queries are cropped to the building, as the protocol wants; without that
the figures of different papers cannot be compared.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from metrics import Floats, Indices
from PIL import Image

PROTOCOLS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
"""What counts as found, and what counts as not there, by the lists of the ground truth."""

_HARMLESS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
}


def mean_average_precision(ranks: Indices, truth: Sequence[Mapping[str, Any]], protocol: str) -> float:
    """Over the queries that have something to find.

    Args:
        ranks: [q, n], the gallery's images from the nearest on.
        truth: for each query the lists "easy", "hard" and "junk" of images.
        protocol: a name in PROTOCOLS.
    """
    wanted, ignored = PROTOCOLS[protocol]
    found = []
    for order, lists in zip(ranks, truth, strict=True):
        positive = {int(i) for name in wanted for i in lists[name]}
        absent = {int(i) for name in ignored for i in lists[name]}
        if positive:
            found.append(
                average_precision([int(i) in positive for i in order if int(i) not in absent], len(positive))
            )
    return float(np.mean(found))


def average_precision(hits: Sequence[bool], positives: int) -> float:
    """The area under precision and recall by trapezia, as the dataset's own code computes it."""
    places = np.flatnonzero(hits)
    count = np.arange(len(places))
    before = np.where(places == 0, 1.0, count / np.maximum(places, 1))
    after = (count + 1) / (places + 1)
    return float(((before + after) / 2).sum() / positives)


def cropped(image: Image.Image, box: Sequence[float]) -> Image.Image:
    """The query's building: (left, top, right, bottom) in pixels."""
    left, top, right, bottom = box
    return image.crop((round(left), round(top), round(right), round(bottom)))


class _Harmless(pickle.Unpickler):
    """Reads lists, numbers, texts and arrays; a pickle that asks for anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"the ground truth asks for {module}.{name}, which is not data")
        return super().find_class(module, name)


def read_truth(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        truth: dict[str, Any] = _Harmless(stream).load()
    return truth


def main() -> None:
    from lookalike_extractor.descriptor import load_descriptor_models
    from lookalike_extractor.recipe import RECIPES
    from threshold import describe

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--recipe", default="semantic", choices=list(RECIPES))
    wanted = parser.parse_args()
    truth = read_truth(wanted.truth)
    model = load_descriptor_models([RECIPES[wanted.recipe]])[0].eval()

    def photo(name: str) -> Image.Image:
        return Image.open(wanted.images / f"{name}.jpg").convert("RGB")

    gallery = describe(model, wanted.recipe, map(photo, truth["imlist"]))
    queries: Floats = describe(
        model,
        wanted.recipe,
        (cropped(photo(n), g["bbx"]) for n, g in zip(truth["qimlist"], truth["gnd"], strict=True)),
    )
    ranks = np.argsort(-(queries @ gallery.T), axis=1, kind="stable")
    for protocol in PROTOCOLS:
        print(f"{protocol:8s} mAP {mean_average_precision(ranks, truth['gnd'], protocol):.4f}")


if __name__ == "__main__":
    main()
