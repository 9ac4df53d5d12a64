"""dlib's network for faces (CC0): a residual network of 29 layers for aligned faces of 150 pixels.

"head", averaged over its places, gives 128 numbers; of one person they are less than about .6 apart. Their
lengths matter, so a recipe keeps them (Recipe.l2_radius).
Source: dlib's dnn_metric_learning_on_images example; layers in the order of face-api.js (MIT).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lookalike_extractor.errors import WeightsUnavailable
from lookalike_extractor.faces import Detector, FaceAligner
from lookalike_extractor.preprocessing import Aligner, Preprocessing

from .base import BackboneInfo

_NAME = "face_resnet"
_SIDE = 150
_BLOCKS = (  # inputs, outputs, halved
    *[(32, 32, False)] * 3,
    (32, 64, True),
    *[(64, 64, False)] * 3,
    (64, 128, True),
    *[(128, 128, False)] * 2,
    (128, 256, True),
    *[(256, 256, False)] * 2,
    (256, 256, True),
)


class Residual(nn.Module):
    """Two convolutions beside a shortcut; when halved, what is smaller is filled up with zeros."""

    def __init__(self, inputs: int, outputs: int, halved: bool) -> None:
        super().__init__()
        self.halved, self.more = halved, outputs - inputs
        stride, padding = (2, 0) if halved else (1, 1)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu(self.conv1(x)))
        if not self.halved:
            return F.relu(y + x)
        pooled = F.avg_pool2d(x, 2)
        y = F.pad(y, (0, pooled.shape[3] - y.shape[3], 0, pooled.shape[2] - y.shape[2]))
        return F.relu(y + F.pad(pooled, (0, 0, 0, 0, 0, self.more)))


class Head(nn.Module):
    """[n, 256, h, w] -> [n, 128, h, w]: one product for each place of each image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(128, 256))

    def forward(self, x: Tensor) -> Tensor:
        # A convolution would take another kernel, with other last bits, for another size of the batch.
        product = torch.bmm(self.weight.expand(x.shape[0], -1, -1), x.flatten(2))
        features: Tensor = product.unflatten(2, x.shape[2:])
        return features


class FaceResNet(nn.Module):
    """float32 [n, 3, 150, 150] -> [n, 128, 2, 2]; the mean over the places describes the face.

    `detector` is not part of the forward pass: it finds the faces beforehand.
    """

    def __init__(self) -> None:
        super().__init__()
        self.detector = Detector()
        self.stem = nn.Conv2d(3, 32, 7, 2)
        self.pool = nn.MaxPool2d(3, 2)
        self.blocks = nn.Sequential(*(Residual(*block) for block in _BLOCKS))
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.head(self.blocks(self.pool(F.relu(self.stem(x)))))
        return features


class FaceResNets:
    """The family, see base.Family."""

    def infos(self) -> Sequence[BackboneInfo]:
        return [BackboneInfo(_NAME, "none")]

    def create(self, name: str) -> nn.Module:
        return FaceResNet()

    def preprocessing(self, name: str) -> Preprocessing:
        # dlib subtracts the mean and divides by 256.
        mean = (122.782 / 255, 117.001 / 255, 104.298 / 255)
        return Preprocessing(_SIDE, _SIDE, "squash", mean, (256 / 255,) * 3)

    def aligner(self, module: nn.Module) -> Aligner | None:
        return FaceAligner(module.detector) if isinstance(module, FaceResNet) else None

    def own_weights(self, name: str) -> Mapping[str, Tensor]:
        raise WeightsUnavailable(
            f"{name} has no weights of its own; give the file that `lookalike faces fetch` writes"
        )

    def adapt(self, name: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return state
