"""From pixels to descriptors: one forward pass of a backbone for all recipes that share it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .backbones import Backbone, default_preprocessing, load_backbone
from .errors import RecipeInvalid
from .extraction import create_feature_extractor
from .folding import fold_batch_norm
from .images import Preprocessing
from .pooling import join, pool
from .recipe import Recipe, Space, space_id


class DescriptorModel(nn.Module):
    """Turns pixels into the descriptors of several recipes.

    All recipes must share one backbone, one set of weights and one preprocessing; the backbone runs once.

    Attributes:
        spaces: the embedding space of each recipe, by the recipe's name.
        preprocessing: how images must be decoded for it (images.decode).
    """

    def __init__(self, backbone: Backbone, recipes: Sequence[Recipe]) -> None:
        super().__init__()
        self.recipes = _checked(backbone, recipes)
        self.preprocessing = preprocessing_of(recipes[0], backbone.preprocessing)
        nodes = {tap.node: tap.node for recipe in recipes for tap in recipe.taps}
        extractor = create_feature_extractor(backbone.module, return_nodes=nodes).eval()
        self.extractor = fold_batch_norm(extractor).to(memory_format=torch.channels_last)
        mean, std = torch.tensor(self.preprocessing.mean), torch.tensor(self.preprocessing.std)
        self.scale = nn.Buffer((1 / (255 * std)).view(1, 3, 1, 1))
        self.shift = nn.Buffer((-mean / std).view(1, 3, 1, 1))
        self.spaces = self._spaces(backbone.weights_digest)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Computes descriptors.

        An image's descriptor does not depend on its neighbours in the batch, bit for bit.

        Args:
            pixels: uint8 [n, 3, h, w], RGB, of the preprocessing's size, on the model's device.

        Returns:
            float32 [n, d] for each recipe, by name; rows of length 1.
        """
        # oneDNN takes other kernels for a batch of one, whose results differ in the last bits.
        alone = len(pixels) == 1 and pixels.device.type == "cpu"
        x = pixels.expand(2, -1, -1, -1) if alone else pixels
        described = self._describe(x)
        return {name: rows[:1] for name, rows in described.items()} if alone else described

    def _describe(self, pixels: Tensor) -> dict[str, Tensor]:
        x = pixels.to(self.scale.dtype, memory_format=torch.channels_last) * self.scale + self.shift
        features = self.extractor(x)
        return {
            recipe.name: join([pool(features[tap.node], tap.pooling, tap.p).float() for tap in recipe.taps])
            for recipe in self.recipes
        }

    def _spaces(self, weights_digest: str) -> dict[str, Space]:
        size = (self.preprocessing.height, self.preprocessing.width)
        with torch.inference_mode():
            described = self(torch.zeros(2, 3, *size, dtype=torch.uint8))
        return {
            recipe.name: Space(
                space_id(recipe, weights_digest, self.preprocessing.identity()),
                described[recipe.name].shape[1],
                recipe.name,
            )
            for recipe in self.recipes
        }


def load_descriptor_models(recipes: Sequence[Recipe]) -> list[DescriptorModel]:
    """Loads recipes: those that agree on backbone, weights and preprocessing share one model.

    Raises:
        BackboneUnknown, WeightsUnavailable, CheckpointMismatch, NodeUnknown, RecipeInvalid.
    """
    groups: dict[tuple[str, str | None, Preprocessing], list[Recipe]] = {}
    for recipe in recipes:
        preprocessing = preprocessing_of(recipe, default_preprocessing(recipe.backbone))
        groups.setdefault((recipe.backbone, recipe.weights, preprocessing), []).append(recipe)
    return [
        DescriptorModel(load_backbone(backbone, weights), group)
        for (backbone, weights, _), group in groups.items()
    ]


def preprocessing_of(recipe: Recipe, own: Preprocessing) -> Preprocessing:
    """The backbone's own preprocessing with what the recipe says otherwise."""
    height, width = recipe.input_size or (own.height, own.width)
    return dataclasses.replace(own, height=height, width=width, resize=recipe.resize or own.resize)


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


__all__ = ["DescriptorModel", "load_descriptor_models", "preprocessing_of"]
