"""From a feature map to a vector: pure functions, in tables by name.

Those of MAPS take [n, c, h, w], those of TOKENS take [n, t, c] as transformers give it; all return [n, c].
What has no room left ([n, c]) is returned as it is.
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

GRID_LEVELS = 3
"""Scales of the grid of regions: 1 + 4 + 9 squares."""


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


def rmac(features: Tensor, p: float = 1.0) -> Tensor:
    """R-MAC of Tolias, Sicre and Jegou (arXiv:1511.05879), [n, c, h, w] -> [n, c].

    The largest in each region of the grid, each region to length 1, their mean.
    """
    grid = _grid(features)
    total = torch.zeros_like(features[:, :, 0, 0])
    for y, x, side in grid:  # added one by one: a sum by torch may add in another order in another batch
        total = total + F.normalize(features[:, :, y : y + side, x : x + side].amax(dim=(2, 3)), dim=1)
    return total / len(grid)


def rgem(features: Tensor, p: float = 3.0) -> Tensor:
    """GeM in each region of R-MAC's grid, each region to length 1, their mean: [n, c, h, w] -> [n, c].

    Each region counts the same, however strong its features are, so what a crop loses weighs less.
    """
    height, width = features.shape[2:]
    grid = _grid(features)
    inside = features.new_zeros(len(grid), height, width)
    for region, (y, x, side) in zip(inside, grid, strict=True):
        region[y : y + side, x : x + side] = 1.0 / region[y : y + side, x : x + side].numel()
    raised = features.clamp(min=GEM_FLOOR).pow(p).flatten(2)
    # One product for each image: a product over the batch would give other last bits in other batches.
    means = torch.bmm(raised, inside.flatten(1).t().expand(len(features), -1, -1))
    return F.normalize(means.pow(1.0 / p), dim=1).mean(dim=2)


def _grid(features: Tensor) -> list[tuple[int, int, int]]:
    """(top, left, side) of squares at GRID_LEVELS scales, level l having l x l that overlap."""
    height, width = features.shape[2:]
    squares = []
    for level in range(1, GRID_LEVELS + 1):
        side = 2 * min(height, width) / (level + 1)
        tops, lefts = _spread(height - side, level), _spread(width - side, level)
        squares += [(top, left, max(1, round(side))) for top in tops for left in lefts]
    return squares


def _spread(room: float, count: int) -> list[int]:
    return [int(room / 2)] if count == 1 else [int(room * i / (count - 1)) for i in range(count)]


def first_token(features: Tensor, p: float = 1.0) -> Tensor:
    """The class token, [n, t, c] -> [n, c]."""
    return features[:, 0]


def mean_token(features: Tensor, p: float = 1.0) -> Tensor:
    """The mean of all tokens but the class token, [n, t, c] -> [n, c]."""
    return features[:, 1:].mean(dim=1)


Pooling = Callable[[Tensor, float], Tensor]
MAPS: Mapping[str, Pooling] = {"avg": avg, "max": maximum, "gem": gem, "rmac": rmac, "rgem": rgem}
TOKENS: Mapping[str, Pooling] = {"cls": first_token, "tokens": mean_token}
POOLINGS: Mapping[str, Pooling] = {**MAPS, **TOKENS}
POWERED = frozenset({"gem", "rgem"})
"""Poolings whose power matters."""


def pool(features: Tensor, pooling: str, p: float) -> Tensor:
    """Pools by name.

    Raises:
        RecipeInvalid: no such pooling, or `features` has not the shape that it takes.
    """
    check_pooling(pooling, p)
    if features.ndim == 2:
        return features
    needed, shape = (4, "[n, c, h, w]") if pooling in MAPS else (3, "[n, t, c]")
    if features.ndim != needed:
        raise RecipeInvalid(
            f"{pooling} cannot pool a node of shape {list(features.shape)}; choose one with {shape}"
        )
    return POOLINGS[pooling](features, p)


def check_pooling(pooling: str, p: float) -> None:
    """Raises RecipeInvalid, with the nearest names, when there is no such pooling or no such power."""
    if pooling not in POOLINGS:
        known = ", ".join(POOLINGS)
        raise RecipeInvalid(
            f"there is no pooling {pooling!r}; there are {known}.{did_you_mean(pooling, POOLINGS)}"
        )
    if pooling in POWERED and not 1.0 <= p <= GEM_MOST:
        raise RecipeInvalid(f"the power of {pooling} is {p}; it must be between 1 and {GEM_MOST:g}")


def lift(features: Tensor, radius: float) -> Tensor:
    """Puts vectors [n, d] on a sphere of one dimension more, [n, d + 1] of length 1, keeping their distances.

    Where vectors are short beside the radius, the cosine of two is 1 - distance^2 / (2 radius^2), so that it
    ranks as Euclidean distance does. A vector longer than the radius is shortened to it.
    Source: Bachrach et al., "Speeding up the Xbox recommender system using a Euclidean transformation for
    inner-product spaces", 2014.
    """
    scaled = features / radius
    scaled = scaled / scaled.norm(dim=1, keepdim=True).clamp(min=1.0)
    height = (1.0 - scaled.square().sum(dim=1, keepdim=True)).clamp(min=0.0).sqrt()
    return F.normalize(torch.cat([scaled, height], dim=1), dim=1)


def join(parts: list[Tensor]) -> Tensor:
    """Joins a recipe's nodes: each [n, c_i] scaled to length 1, side by side, the whole again to length 1."""
    return F.normalize(torch.cat([F.normalize(part, dim=1) for part in parts], dim=1), dim=1)
