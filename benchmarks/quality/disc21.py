"""The protocol of DISC21, the Image Similarity Challenge (arXiv:2106.09672): uAP and recall at precision .90.

    python benchmarks/quality/disc21.py QUERIES REFERENCES TRUTH.csv [--background TRAINING] [--recipe ...]

Folders of jpg files; TRUTH.csv has query_id,reference_id, the second empty for a query without a match. With
a background (the training images), scores are normalised.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from metrics import TOP, CopyDetection, Floats, copy_detection


def read_truth(file: Path) -> dict[str, str]:
    """The reference of each query that has one."""
    with file.open(newline="") as text:
        rows = [row for row in csv.reader(text) if row and row[0] != "query_id"]
    return {row[0]: row[1] for row in rows if len(row) > 1 and row[1]}


def detect(
    similarities: Floats, queries: Sequence[str], references: Sequence[str], truth: Mapping[str, str]
) -> CopyDetection:
    """Measures similarities [q, n] of all queries, those without a match too; the best TOP of each count.

    Raises:
        ValueError: the truth names a query or a reference that is not there.
    """
    places = {name: place for place, name in enumerate(references)}
    lost = sorted((set(truth) - set(queries)) | (set(truth.values()) - set(places)))
    if lost:
        raise ValueError(f"the truth names {len(lost)} images that are not there, as {lost[0]!r}")
    matches = np.array([places[truth[name]] if name in truth else -1 for name in queries])
    return copy_detection(similarities, matches)


def main() -> None:
    from lookalike_extractor.descriptor import load_descriptor_models
    from lookalike_extractor.fitting import read_photo
    from lookalike_extractor.normalization import query_bias
    from lookalike_extractor.recipe import RECIPES
    from threshold import describe

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("queries", type=Path)
    parser.add_argument("references", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--background", type=Path)
    parser.add_argument("--recipe", default="near_duplicate", choices=list(RECIPES))
    wanted = parser.parse_args()
    model = load_descriptor_models([RECIPES[wanted.recipe]])[0].eval()

    def described(folder: Path) -> tuple[list[str], Floats]:
        paths = sorted(folder.glob("*.jpg"))
        return [path.stem for path in paths], describe(model, wanted.recipe, map(read_photo, paths))

    queries, rows = described(wanted.queries)
    references, gallery = described(wanted.references)
    similarities = rows @ gallery.T
    if wanted.background is not None:
        similarities -= query_bias(rows, described(wanted.background)[1])[:, None]
    reached = detect(similarities, queries, references, read_truth(wanted.truth))
    print(f"uAP {reached.micro_ap:.4f}  R@P90 {reached.recall_at_p90:.4f}  R@1 {reached.recall_at_1:.4f}")
    print(f"{len(queries):,} queries, {len(references):,} references, the best {TOP} pairs of each query")


if __name__ == "__main__":
    main()
