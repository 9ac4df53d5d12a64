"""From a feature map to a vector: pure functions, in a table by name.

Each takes [n, c, h, w] and returns [n, c]. A map that has no room left ([n, c]) is returned as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import RecipeInvalid, did_you_mean

GEM_FLOOR = 1e-6
"""GeM is defined for what is not negative: it takes smaller values, as signed maps have them, for this."""

GEM_MOST = 16.0
"""The greatest power that float32 can take of activations up to 200."""


def avg(features: Tensor, p: float = 1.0) -> Tensor:
    """The mean over all places, [n, c, h, w] -> [n, c]."""
    return features.mean(dim=(2, 3))


def maximum(features: Tensor, p: float = 1.0) -> Tensor:
    """The largest over all places, [n, c, h, w] -> [n, c]."""
    return features.amax(dim=(2, 3))


def gem(features: Tensor, p: float = 3.0) -> Tensor:
    """The generalised mean of Radenovic, Tolias and Chum (arXiv:1711.02512, eq. 3), [n, c, h, w] -> [n, c].

    (mean of x^p)^(1/p): the mean at p = 1, the largest as p grows. Values under GEM_FLOOR count as GEM_FLOOR.
    """
    return features.clamp(min=GEM_FLOOR).pow(p).mean(dim=(2, 3)).pow(1.0 / p)


POOLINGS: Mapping[str, Callable[[Tensor, float], Tensor]] = {"avg": avg, "max": maximum, "gem": gem}


def pool(features: Tensor, pooling: str, p: float) -> Tensor:
    """Pools by name.

    Raises:
        RecipeInvalid: no such pooling, or `features` is neither [n, c, h, w] nor [n, c].
    """
    check_pooling(pooling, p)
    if features.ndim == 2:
        return features
    if features.ndim != 4:
        raise RecipeInvalid(
            f"a node of shape {list(features.shape)} cannot be pooled; choose one with [n, c, h, w]"
        )
    return POOLINGS[pooling](features, p)


def check_pooling(pooling: str, p: float) -> None:
    """Raises RecipeInvalid, with the nearest names, when there is no such pooling or no such power."""
    if pooling not in POOLINGS:
        known = ", ".join(POOLINGS)
        raise RecipeInvalid(
            f"there is no pooling {pooling!r}; there are {known}.{did_you_mean(pooling, POOLINGS)}"
        )
    if pooling == "gem" and not 1.0 <= p <= GEM_MOST:
        raise RecipeInvalid(f"the power of gem is {p}; it must be between 1 and {GEM_MOST:g}")


def join(parts: list[Tensor]) -> Tensor:
    """Joins a recipe's nodes: each [n, c_i] scaled to length 1, side by side, the whole again to length 1."""
    return F.normalize(torch.cat([F.normalize(part, dim=1) for part in parts], dim=1), dim=1)
