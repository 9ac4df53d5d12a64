"""Runs imagededup over a folder and prints its pairs as JSON: called by copies.py, in its own environment."""

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


def main() -> None:
    folder = Path(sys.argv[1])
    with contextlib.redirect_stdout(sys.stderr):
        model = Pooled()
        custom = CustomModel("lite0", model, model.transform)
        found: dict[str, dict[str, Any]] = {
            "imagededup, hash": PHash(verbose=False).find_duplicates(image_dir=folder),
            "imagededup, CNN": CNN(verbose=False, model_config=custom).find_duplicates(
                image_dir=folder, num_enc_workers=0
            ),
        }
    print(json.dumps({name: [(a, b) for a in pairs for b in pairs[a]] for name, pairs in found.items()}))


if __name__ == "__main__":
    main()
