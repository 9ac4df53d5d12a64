"""Orders what a search found anew, by what its neighbours say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .whitening import Floats

_Flags = NDArray[np.bool_]

EXPANDED_BY = 10
POWER = 3.0
K1, K2, WEIGHT = 20, 6, 0.3


def expand_query(query: Floats, neighbours: Floats) -> Floats:
    """The query and its nearest neighbours added up, each weighted by the third power of its similarity.

    Alpha query expansion of Radenovic, Tolias and Chum, arXiv:1711.02512, section 3.2.

    Args:
        query: [d], of length 1.
        neighbours: [n, d], rows of length 1.

    Returns:
        float32 [d], of length 1.
    """
    weights = np.maximum(neighbours @ query, 0) ** POWER
    expanded = query + weights @ neighbours
    unit: Floats = (expanded / np.linalg.norm(expanded)).astype(np.float32)
    return unit


def k_reciprocal(
    query: Floats, candidates: Floats, k1: int = K1, k2: int = K2, weight: float = WEIGHT
) -> Floats:
    """How close each candidate is to the query when shared neighbours count; higher is closer.

    Zhong, Zheng, Cao and Li, CVPR 2017: two pictures are close when they count each other among their k1
    nearest, and so do the same others. The distance between those sets (Jaccard) is mixed with the plain one.

    Args:
        query: [d], of length 1.
        candidates: [n, d], rows of length 1: what a search found.
        k1: neighbours that count.
        k2: nearest whose sets are averaged.
        weight: of the plain distance, 0..1.

    Returns:
        float32 [n], 0 for an equal picture, down to -1.
    """
    rows = np.concatenate([query[None], candidates]).astype(np.float64)
    similarities = rows @ rows.T
    order = np.argsort(-similarities, axis=1, kind="stable")
    sets = _expanded(_reciprocal(order, k1), _reciprocal(order, max(1, k1 // 2)))
    weights = np.where(sets, np.exp(similarities), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    weights = weights[order[:, :k2]].mean(axis=1)
    shared = np.minimum(weights[0], weights[1:]).sum(axis=1)
    jaccard = 1 - shared / (2 - shared)
    plain = (1 - similarities[0, 1:]) / 2
    close: Floats = -((1 - weight) * jaccard + weight * plain).astype(np.float32)
    return close


def _reciprocal(order: NDArray[np.intp], k: int) -> _Flags:
    """Whether i and j count each other among their k nearest (and themselves): [n, n]."""
    near = np.zeros(order.shape, bool)
    np.put_along_axis(near, order[:, : k + 1], True, axis=1)
    both: _Flags = near & near.T
    return both


def _expanded(sets: _Flags, halves: _Flags) -> _Flags:
    """Takes in the smaller sets of members with which two thirds are shared already."""
    shared = sets.astype(np.int32) @ halves.T.astype(
        np.int32
    )  # [i, q]: of the set of i and the half set of q
    taken = sets & (shared >= halves.sum(axis=1) * 2 / 3)
    grown: _Flags = sets | (taken.astype(np.int32) @ halves.astype(np.int32) > 0)
    return grown
