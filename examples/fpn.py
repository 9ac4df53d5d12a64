"""A feature pyramid on the body of a ResNet inside Mask R-CNN: name four nodes, get four trainable outputs.

    python examples/fpn.py [--steps 1]

The use that node extraction is best known for. Random weights and a random picture, to show that it trains;
needs the `extractor` extra.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict

import torch
from lookalike_extractor import create_feature_extractor
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection.mask_rcnn import MaskRCNN
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool


class PyramidBody(nn.Module):
    """[n, 3, h, w] -> maps [n, 256, h / s, w / s] for strides s of 4, 8, 16, 32 and 64."""

    out_channels = 256

    def __init__(self) -> None:
        super().__init__()
        nodes = {f"layer{level}": str(level - 1) for level in (1, 2, 3, 4)}
        self.body = create_feature_extractor(resnet18(weights=None), return_nodes=nodes)
        with torch.no_grad():
            channels = [output.shape[1] for output in self.body.eval()(torch.zeros(2, 3, 64, 64)).values()]
        self.body.train()
        self.pyramid = FeaturePyramidNetwork(channels, self.out_channels, extra_blocks=LastLevelMaxPool())

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        maps: OrderedDict[str, Tensor] = self.pyramid(self.body(images))
        return maps


def training_step(detector: MaskRCNN, optimizer: torch.optim.Optimizer) -> float:
    """One step on one made picture with one box; returns the loss."""
    mask = torch.zeros(1, 96, 96, dtype=torch.uint8)
    mask[:, 20:70, 20:70] = 1
    target = {"boxes": torch.tensor([[20.0, 20.0, 70.0, 70.0]]), "labels": torch.tensor([1]), "masks": mask}
    losses = detector([torch.rand(3, 96, 96)], [target])
    loss = torch.stack(list(losses.values())).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=1)
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    detector = MaskRCNN(PyramidBody(), num_classes=2, min_size=96, max_size=96).train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    for step in range(steps):
        print(f"step {step}: loss {training_step(detector, optimizer):.3f}")


if __name__ == "__main__":
    main()
