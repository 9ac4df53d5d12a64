"""torchvision's classification networks, by name, with their own weights where those can be downloaded.

torchvision is imported when one of them, or their list, is asked for: it takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from torch import Tensor, nn

from lookalike_extractor.errors import WeightsUnavailable
from lookalike_extractor.preprocessing import Aligner, Preprocessing

from .base import BackboneInfo

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class TorchvisionModels:
    """The family, see base.Family."""

    def infos(self) -> Sequence[BackboneInfo]:
        models = _models()
        names = models.list_models(module=models)
        return [BackboneInfo(name, "download" if _weights(name) else "none") for name in names]

    def create(self, name: str) -> nn.Module:
        # Weights are always loaded afterwards, so drawing random ones (seconds, for some) is left out.
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        module: nn.Module = _models().get_model(name, weights=None, **options)
        return module

    def preprocessing(self, name: str) -> Preprocessing:
        weights = _weights(name)
        if weights is None:
            return Preprocessing(224, 224, "crop", _IMAGENET_MEAN, _IMAGENET_STD)
        transforms = weights.transforms()
        (side,), (short,) = transforms.crop_size, transforms.resize_size
        return Preprocessing(
            side,
            side,
            "crop",
            tuple(transforms.mean),
            tuple(transforms.std),
            crop=side / short,
            interpolation=transforms.interpolation.value,
        )

    def aligner(self, module: nn.Module) -> Aligner | None:
        return None

    def own_weights(self, name: str) -> Mapping[str, Tensor]:
        weights = _weights(name)
        if weights is None:
            raise WeightsUnavailable(f"torchvision has no weights for {name}; give the path of a checkpoint")
        try:
            state: Mapping[str, Tensor] = weights.get_state_dict(
                progress=False, check_hash=True, weights_only=True
            )
        except (OSError, RuntimeError) as error:
            raise WeightsUnavailable(
                f"the weights of {name} cannot be downloaded from {weights.url} ({error}); "
                "fetch that file on another machine and give its path as the recipe's weights"
            ) from None
        return state

    def adapt(self, name: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return state


def _models() -> Any:
    import torchvision

    return torchvision.models


@cache
def _weights(name: str) -> Any:
    """The entry of torchvision's own weights that it recommends, or None."""
    return getattr(_models().get_model_weights(name), "DEFAULT", None)
