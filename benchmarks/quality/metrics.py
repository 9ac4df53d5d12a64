"""What a ranking is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

TOP = 10
"""Pairs of each query that are ranked together, as in the Image Similarity Challenge (arXiv:2106.09672)."""


@dataclass(frozen=True)
class CopyDetection:
    """How well copies are found.

    Attributes:
        recall_at_1: share of the queries with a match whose match ranks first.
        micro_ap: area under precision and recall of all queries' pairs in one ranking (uAP).
        recall_at_p90: the largest share of matches found by any threshold with a precision of .90 or more.
    """

    recall_at_1: float
    micro_ap: float
    recall_at_p90: float


def copy_detection(similarities: Floats, matches: Indices) -> CopyDetection:
    """Ranks the TOP pairs of each query together with those of all others.

    Args:
        similarities: [q, n] of queries to the gallery; larger is more alike.
        matches: [q], the row of the gallery that a query is a copy of; -1 means none.
    """
    queries = np.arange(len(matches))[:, None]
    top = np.argsort(-similarities, axis=1, kind="stable")[:, :TOP]
    hits = top == matches[:, None]
    order = np.argsort(-similarities[queries, top].ravel(), kind="stable")
    found = hits.ravel()[order]
    positives = int((matches >= 0).sum())
    precision, recall = precision_and_recall(found, positives)
    return CopyDetection(
        recall_at_1=float(hits[:, 0].sum() / positives),
        micro_ap=float(precision[found].sum() / positives),
        recall_at_p90=float(recall[precision >= 0.9].max(initial=0.0)),
    )


def precision_and_recall(found: NDArray[np.bool_], positives: int) -> tuple[Floats, Floats]:
    """Of the first 1, 2, ... of a ranking whose hits are `found`: [n], [n]."""
    true = np.cumsum(found)
    return true / np.arange(1, len(found) + 1), true / positives


def class_retrieval(descriptors: Floats, labels: NDArray[np.str_]) -> float:
    """Mean average precision of finding images of one class, each image against all others.

    Args:
        descriptors: [n, d], rows of length 1.
        labels: [n]. Images that are alone in their class do not count.
    """
    similarities = descriptors @ descriptors.T
    np.fill_diagonal(similarities, -np.inf)
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :-1]
    found = labels[order] == labels[:, None]
    positives = found.sum(axis=1)
    precision = np.cumsum(found, axis=1) / np.arange(1, len(labels))
    kept = positives > 0
    return float(((precision * found).sum(axis=1)[kept] / positives[kept]).mean())


@dataclass(frozen=True)
class Verification:
    """How well a threshold tells pairs of the same from pairs of others.

    Attributes:
        equal_error_rate: where as many true pairs are rejected as false ones are accepted.
        accepted: share of true pairs accepted (TAR) at each false acceptance rate (FAR) asked for.
    """

    equal_error_rate: float
    accepted: tuple[float, ...]


def verification(
    true: Floats, false: Floats, false_acceptances: tuple[float, ...] = (1e-2, 1e-3)
) -> Verification:
    """Scores of pairs of the same [m] and of others [n].

    A pair is accepted at or above the threshold; at most the FAR of the false ones may be.
    """
    true, false = np.sort(true), np.sort(false)
    thresholds = np.unique(np.concatenate([true, false, [np.inf]]))
    rejected = np.searchsorted(true, thresholds) / len(true)
    accepted = 1 - np.searchsorted(false, thresholds) / len(false)
    nearest = np.argmin(np.abs(rejected - accepted))
    rates = [1 - rejected[np.flatnonzero(accepted <= most)[0]] for most in false_acceptances]
    return Verification(float(rejected[nearest] + accepted[nearest]) / 2, tuple(map(float, rates)))
