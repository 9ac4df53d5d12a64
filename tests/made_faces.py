"""Networks for faces, made by hand: a window is a face where it is bright."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lookalike_extractor.backbones.face_resnet import FaceResNet
from lookalike_extractor.faces import Detector
from lookalike_extractor.faces.alignment import PADDING, REFERENCE
from safetensors.torch import save_file

PLACE = (REFERENCE + PADDING) / (1 + 2 * PADDING)
"""Where landmarks are in an aligned face, [5, 2], in sides of it."""

WHITE, BLACK = (np.full((100, 130, 3), value, np.uint8) for value in (255, 0))


@torch.no_grad()
def detector(steepness: float = 20.0) -> Detector:
    """Takes bright windows for faces, with landmarks where they are in an aligned face."""
    made = Detector().eval()
    for parameter in made.parameters():
        parameter.zero_()
    first = made.proposal
    first.conv1.weight[0] = 1 / 27
    first.conv2.weight[0, 0, 1, 1] = first.conv3.weight[0, 0, 1, 1] = 1
    first.conv4_1.weight[1, 0] = steepness
    first.conv4_1.bias[1] = -steepness / 2
    made.refinement.dense5_1.bias[1] = made.output.dense6_1.bias[1] = 5
    made.output.dense6_3.bias.copy_(torch.from_numpy(PLACE.T.flatten()))
    return made


def weights(folder: Path, steepness: float = 20.0) -> Path:
    """A file of weights with that detector before a random network."""
    torch.manual_seed(0)
    network = FaceResNet()
    torch.nn.init.normal_(network.head.weight)
    network.detector = detector(steepness)
    path = folder / "faces.safetensors"
    save_file(network.state_dict(), path)
    return path
