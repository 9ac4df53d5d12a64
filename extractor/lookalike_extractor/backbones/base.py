"""What a backbone is, and the contract that a family of backbones keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from lookalike_extractor.preprocessing import Aligner, Preprocessing


@dataclass(frozen=True)
class Backbone:
    """A network with weights, in eval mode, and what it expects of its images.

    Attributes:
        name: as list_backbones gives it.
        module: takes float32 [n, 3, h, w], normalised as `preprocessing` says.
        preprocessing: of the weights.
        weights_digest: hex SHA-256 over names, shapes and values of the weights, whatever file they came in.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    weights_digest: str


@dataclass(frozen=True)
class BackboneInfo:
    """A backbone that can be asked for.

    Attributes:
        name: as load_backbone takes it.
        weights: "packaged" (installed), "download" (at first use) or "none" (a checkpoint must be given).
    """

    name: str
    weights: str


class Family(Protocol):
    """One file, one family of networks."""

    def infos(self) -> Sequence[BackboneInfo]:
        """The backbones of this family. Cheap: no network is made."""

    def create(self, name: str) -> nn.Module:
        """The network with whatever weights its constructor gives."""

    def preprocessing(self, name: str) -> Preprocessing:
        """What the family's own weights expect."""

    def aligner(self, module: nn.Module) -> Aligner | None:
        """What cuts out of a picture what the filled network describes; None: it describes whole pictures."""

    def own_weights(self, name: str) -> Mapping[str, Tensor]:
        """The family's own weights, under the keys of `create(name).state_dict()`.

        Raises WeightsUnavailable.
        """

    def adapt(self, name: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A checkpoint's entries under the keys of `create(name).state_dict()`, where they are known."""
