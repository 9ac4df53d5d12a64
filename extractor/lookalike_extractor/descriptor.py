"""From pixels to descriptors: one forward pass of a backbone for all recipes that share it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .artifacts import Artifact, load_artifact
from .backbones import Backbone, default_preprocessing, load_backbone
from .errors import BackboneUnknown, NodeUnknown, RecipeInvalid
from .extraction import create_feature_extractor
from .extractor import FeatureExtractor
from .folding import fold_batch_norm
from .pooling import join, lift, pool
from .preprocessing import Preprocessing
from .recipe import Recipe, Space, space_id
from .whitening import WhiteningLayer


class RecipeHead(nn.Module):
    """From the nodes of a backbone to one recipe's descriptor: pool each, whiten each if so fitted, join."""

    def __init__(self, recipe: Recipe, artifact: Artifact | None) -> None:
        super().__init__()
        self.taps, self.radius = recipe.taps, recipe.l2_radius
        self.digest = artifact.digest if artifact else None
        self.whitenings = nn.ModuleList(WhiteningLayer(w) for w in artifact.whitenings) if artifact else None

    def pooled(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Features by node -> float32 [n, c] for each tap."""
        return [pool(features[tap.node], tap.pooling, tap.p).float() for tap in self.taps]

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features by node -> float32 [n, d], rows of length 1."""
        parts = self.pooled(features)
        if self.radius is not None:
            return lift(parts[0], self.radius)
        if self.whitenings is not None:
            parts = [whiten(part) for whiten, part in zip(self.whitenings, parts, strict=True)]
        return join(parts)


class DescriptorModel(nn.Module):
    """Turns pixels into the descriptors of several recipes.

    All recipes must share one backbone, one set of weights and one preprocessing; the backbone runs once.

    Attributes:
        spaces: the embedding space of each recipe, by the recipe's name.
        preprocessing: how images must be decoded for it (images.decode).
        pads_one: whether the backbone gets an image twice where it is the only one, on a CPU.
    """

    def __init__(self, backbone: Backbone, recipes: Sequence[Recipe]) -> None:
        super().__init__()
        self.recipes = _checked(backbone, recipes)
        self.preprocessing = preprocessing_of(recipes[0], backbone.preprocessing)
        extractor = _tapped(backbone, recipes)
        folded = fold_batch_norm(extractor) if isinstance(extractor, FeatureExtractor) else extractor
        self.extractor = folded.to(memory_format=torch.channels_last)
        mean, std = torch.tensor(self.preprocessing.mean), torch.tensor(self.preprocessing.std)
        self.scale = nn.Buffer((1 / (255 * std)).view(1, 3, 1, 1))
        self.shift = nn.Buffer((-mean / std).view(1, 3, 1, 1))
        self.pads_one = True
        heads = nn.ModuleList(RecipeHead(recipe, _artifact(recipe, backbone)) for recipe in recipes)
        self.heads: Sequence[RecipeHead] = heads  # type: ignore[assignment]  # a ModuleList does not tell of what
        self.spaces = self._spaces(backbone.weights_digest)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Computes descriptors.

        An image's descriptor does not depend on its neighbours in the batch, bit for bit.

        Args:
            pixels: uint8 [n, 3, h, w], RGB, of the preprocessing's size, on the model's device.

        Returns:
            float32 [n, d] for each recipe, by name; rows of length 1.
        """
        alone = len(pixels) == 1 and pixels.device.type == "cpu"
        features = self.features(_twice(pixels) if alone and self.pads_one else pixels)
        if alone and not self.pads_one:
            features = {node: _twice(maps) for node, maps in features.items()}
        described = {
            recipe.name: head(features) for recipe, head in zip(self.recipes, self.heads, strict=True)
        }
        return {name: rows[:1] for name, rows in described.items()} if alone else described

    def features(self, pixels: Tensor) -> dict[str, Tensor]:
        """uint8 [n, 3, h, w] -> the output of each tapped node, by its name."""
        x = pixels.to(self.scale.dtype, memory_format=torch.channels_last) * self.scale + self.shift
        features: dict[str, Tensor] = self.extractor(x)
        return features

    def _spaces(self, weights_digest: str) -> dict[str, Space]:
        size = (self.preprocessing.height, self.preprocessing.width)
        with torch.inference_mode():
            described = self(torch.zeros(2, 3, *size, dtype=torch.uint8))
        return {
            recipe.name: Space(
                space_id(recipe, weights_digest, self.preprocessing.identity(), head.digest),
                described[recipe.name].shape[1],
                recipe.name,
            )
            for recipe, head in zip(self.recipes, self.heads, strict=True)
        }


def _tapped(backbone: Backbone, recipes: Sequence[Recipe]) -> nn.Module:
    """The extractor of all nodes of the recipes. Raises NodeUnknown, with the recipes that name the node."""
    nodes = {tap.node: tap.node for recipe in recipes for tap in recipe.taps}
    try:
        return create_feature_extractor(backbone.module, return_nodes=nodes).eval()
    except NodeUnknown as error:
        at_fault = [r.name for r in recipes if error.metadata.get("node") in [tap.node for tap in r.taps]]
        named = " and ".join(map(repr, at_fault))
        raise NodeUnknown(f"recipe {named}: {error.message}", **error.metadata) from None


def _twice(batch: Tensor) -> Tensor:
    """[1, ...] -> [2, ...], the same again. For one by itself oneDNN takes kernels with other last bits."""
    return torch.cat([batch, batch])


def load_descriptor_models(recipes: Sequence[Recipe]) -> list[DescriptorModel]:
    """Loads recipes: those that agree on backbone, weights and preprocessing share one model.

    Raises:
        BackboneUnknown, WeightsUnavailable, CheckpointMismatch, NodeUnknown, RecipeInvalid, ArtifactInvalid.
    """
    return [
        DescriptorModel(load_backbone(group[0].backbone, group[0].weights), group)
        for group in group_recipes(recipes)
    ]


def group_recipes(recipes: Sequence[Recipe]) -> list[list[Recipe]]:
    """Those that share one model, together, in the order of their first. Raises BackboneUnknown."""
    groups: dict[tuple[str, str | None, Preprocessing], list[Recipe]] = {}
    for recipe in recipes:
        try:
            preprocessing = preprocessing_of(recipe, default_preprocessing(recipe.backbone))
        except BackboneUnknown as error:
            raise BackboneUnknown(f"recipe {recipe.name!r}: {error.message}", **error.metadata) from None
        groups.setdefault((recipe.backbone, recipe.weights, preprocessing), []).append(recipe)
    return list(groups.values())


def preprocessing_of(recipe: Recipe, own: Preprocessing) -> Preprocessing:
    """The backbone's own preprocessing with what the recipe says otherwise."""
    height, width = recipe.input_size or (own.height, own.width)
    return dataclasses.replace(own, height=height, width=width, resize=recipe.resize or own.resize)


def _artifact(recipe: Recipe, backbone: Backbone) -> Artifact | None:
    if recipe.whitening is None:
        return None
    artifact = load_artifact(recipe.whitening)
    artifact.check(backbone.name, backbone.weights_digest, [str(tap) for tap in recipe.taps])
    return artifact


def _checked(backbone: Backbone, recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
    if not recipes:
        raise RecipeInvalid("a descriptor model needs at least one recipe")
    if len({recipe.name for recipe in recipes}) < len(recipes):
        raise RecipeInvalid(f"two recipes have one name: {', '.join(recipe.name for recipe in recipes)}")
    shared: set[tuple[str, Preprocessing]] = {
        (recipe.backbone, preprocessing_of(recipe, backbone.preprocessing)) for recipe in recipes
    }
    if len(shared) > 1 or recipes[0].backbone != backbone.name:
        raise RecipeInvalid(f"recipes of one model must share backbone {backbone.name!r} and preprocessing")
    return tuple(recipes)


__all__ = ["DescriptorModel", "group_recipes", "load_descriptor_models", "preprocessing_of"]
