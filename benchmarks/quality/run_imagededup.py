"""Runs a method of imagededup over a folder and prints its pairs as JSON; copies.py calls it."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from imagededup.methods import CNN, PHash
from imagededup.utils import CustomModel
from lookalike_extractor.backbones import load_backbone
from lookalike_extractor.images import fit
from PIL import Image
from torch import nn


class Pooled(nn.Module):
    """The last features of EfficientNet-Lite0, averaged over the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = load_backbone("efficientnet_lite0")
        self.maps: list[torch.Tensor] = []
        self.backbone.module.head.register_forward_hook(lambda _, __, maps: self.maps.append(maps))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.backbone.module(pixels)
        return self.maps.pop().mean((2, 3))

    def transform(self, image: Image.Image) -> torch.Tensor:
        how = self.backbone.preprocessing
        pixels = torch.from_numpy(fit(np.asarray(image.convert("RGB")), how)).permute(2, 0, 1) / 255
        return (pixels - torch.tensor(how.mean)[:, None, None]) / torch.tensor(how.std)[:, None, None]


def by_cnn(folder: Path) -> dict[str, Any]:
    model = Pooled()
    custom = CustomModel("lite0", model, model.transform)
    found: dict[str, Any] = CNN(verbose=False, model_config=custom).find_duplicates(
        image_dir=folder, num_enc_workers=0
    )
    return found


def by_hash(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = PHash(verbose=False).find_duplicates(image_dir=folder)
    return found


def main() -> None:
    method, folder = sys.argv[1], Path(sys.argv[2])
    with contextlib.redirect_stdout(sys.stderr):
        found = {"CNN": by_cnn, "hash": by_hash}[method](folder)
    print(json.dumps([(a, b) for a in found for b in found[a]]))


if __name__ == "__main__":
    main()
