"""Recipes: named ways from an image to a descriptor, and the embedding spaces they lead to.

A recipe is like a cook's: the same steps with the same ingredients give the same dish. What tells dishes
apart is the embedding space, a hash of all that shapes a descriptor. The recipe's name is not part of it, so
two servers that call one recipe by different names can still compare descriptors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import RecipeInvalid
from .pooling import POWERED, check_pooling
from .preprocessing import RESIZES

MOST_RADIUS = 1e6


@dataclass(frozen=True)
class Tap:
    """One node of a backbone and how its output is pooled.

    Attributes:
        node: as get_graph_node_names gives it, or a truncated name.
        pooling: "avg", "max", "gem", "rgem" or "rmac"; of tokens "cls" or "tokens".
        p: the power of gem and rgem; not used by the others.
    """

    node: str
    pooling: str = "gem"
    p: float = 3.0

    def __post_init__(self) -> None:
        if not self.node:
            raise RecipeInvalid("a tap has no node; name one as `lookalike nodes BACKBONE` lists them")
        check_pooling(self.pooling, self.p)

    @property
    def spec(self) -> str:
        """The pooling with its parameters, as "gem(p=3)"."""
        return f"{self.pooling}(p={self.p:g})" if self.pooling in POWERED else self.pooling

    def __str__(self) -> str:
        return f"{self.node}:{self.spec}"


@dataclass(frozen=True)
class Recipe:
    """One named way from an image to a descriptor.

    Attributes:
        name: for people and requests.
        backbone: as list_backbones gives it.
        taps: their pooled parts are joined in this order; each part and the whole has length 1.
        weights: path of a checkpoint; None means the backbone's own weights.
        input_size: (height, width) in pixels; None means the backbone's own.
        resize: "squash" or "crop" (see Preprocessing); None means the backbone's own.
        duplicate_threshold: least cosine of two images that are taken for copies of one picture.
        whitening: of each tap's pooled features, before they are joined: the name of a fit that comes with
            the package, or the path of one that `lookalike fit` made; None means none.
        l2_radius: for networks whose descriptors are compared by Euclidean distance, with their lengths: puts
            them on a sphere of this radius, several times their length (pooling.lift). None: length 1.
    """

    name: str
    backbone: str
    taps: tuple[Tap, ...]
    weights: str | None = None
    input_size: tuple[int, int] | None = None
    resize: str | None = None
    duplicate_threshold: float = 0.9
    whitening: str | None = None
    l2_radius: float | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise RecipeInvalid("a recipe has no name")
        if not self.backbone:
            raise RecipeInvalid(f"recipe {self.name!r} has no backbone")
        if not self.taps:
            raise RecipeInvalid(f"recipe {self.name!r} has no taps; name at least one node")
        if len(set(self.taps)) < len(self.taps):
            raise RecipeInvalid(f"recipe {self.name!r} has the same tap twice")
        if self.resize is not None and self.resize not in RESIZES:
            raise RecipeInvalid(
                f"recipe {self.name!r}: resize is {self.resize!r}; it must be 'squash' or 'crop'"
            )
        if self.input_size is not None and min(self.input_size) < 1:
            raise RecipeInvalid(f"recipe {self.name!r}: the input size {self.input_size} is not positive")
        if not -1.0 <= self.duplicate_threshold <= 1.0:
            raise RecipeInvalid(
                f"recipe {self.name!r}: duplicate_threshold is {self.duplicate_threshold}; a cosine is -1..1"
            )
        if self.l2_radius is not None:
            self._check_radius(self.l2_radius)

    def _check_radius(self, radius: float) -> None:
        if not 0 < radius <= MOST_RADIUS:
            raise RecipeInvalid(
                f"recipe {self.name!r}: l2_radius is {radius}; it must be over 0 and at most {MOST_RADIUS:g}"
            )
        if len(self.taps) > 1 or self.whitening is not None:
            raise RecipeInvalid(f"recipe {self.name!r}: l2_radius goes with one tap and without whitening")


@dataclass(frozen=True)
class Space:
    """An embedding space. Two descriptors may be compared if and only if their spaces' ids are equal."""

    id: str
    dimension: int
    recipe: str
    metric: str = "cosine"


def space_id(
    recipe: Recipe, weights_digest: str, preprocessing: Mapping[str, Any], whitening_digest: str | None = None
) -> str:
    """The hash of everything that shapes a descriptor, 32 hex digits of SHA-256 over canonical JSON."""
    identity: dict[str, Any] = {
        "revision": 1,
        "architecture": recipe.backbone,
        "weights": weights_digest,
        "taps": [[tap.node, tap.spec] for tap in recipe.taps],
        "preprocessing": dict(preprocessing),
        "normalisation": (
            "l2 per tap, joined, l2"
            if recipe.l2_radius is None
            else f"on a sphere of radius {recipe.l2_radius:g}"
        ),
        "metric": "cosine",
    }
    if whitening_digest is not None:
        identity["whitening"] = whitening_digest
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


_BUILT_IN = (
    Recipe(
        name="near_duplicate",
        backbone="efficientnet_lite0",
        taps=(Tap("blocks.10.expand", "rgem"), Tap("blocks.15.expand", "rgem")),
        resize="squash",
        # No pair of 1,200 photos of clothes reaches it; docs/quality.md.
        duplicate_threshold=0.67,
        whitening="near_duplicate",
    ),
    Recipe(
        name="semantic",
        backbone="efficientnet_lite0",
        taps=(Tap("head", "rgem"),),
        resize="squash",
        duplicate_threshold=0.9,
    ),
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _BUILT_IN}
"""The recipes that need nothing but the installed packages; the first is the default."""


def face_recipe(weights: str) -> Recipe:
    """The recipe for faces, with the file that `lookalike faces fetch` wrote.

    Two pictures are taken for one person's up to a distance of .6, dlib's own threshold.
    """
    radius = 4.0
    return Recipe(
        name="face",
        backbone="face_resnet",
        taps=(Tap("head", "avg"),),
        weights=weights,
        duplicate_threshold=1 - 0.6**2 / (2 * radius**2),
        l2_radius=radius,
    )
