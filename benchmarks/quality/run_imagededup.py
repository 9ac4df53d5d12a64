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
from lookalike_extractor.preprocessing import fit
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
    finder = CNN(verbose=False, model_config=CustomModel("lite0", model, model.transform))
    encodings = encoded(finder, folder, folder.with_name("imagededup.npz"))
    found: dict[str, Any] = finder.find_duplicates(encoding_map=encodings)
    return found


def encoded(finder: CNN, folder: Path, kept: Path) -> dict[str, Any]:
    """The encodings of all files; they are kept every now and then, so that a run that was ended goes on."""
    encodings = dict(np.load(kept)) if kept.exists() else {}
    missing = [file for file in sorted(folder.glob("*.jpg")) if file.name not in encodings]
    for done, file in enumerate(missing, 1):
        with torch.inference_mode():
            encodings[file.name] = finder.encode_image(image_file=file)[0]
        if not done % 100 or done == len(missing):
            draft = kept.with_name("draft.npz")
            np.savez(draft, **encodings)
            draft.rename(kept)
    return encodings


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
