"""Photos for benchmarks as an extractor takes them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from lookalike_extractor.preprocessing import Preprocessing, fit
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

_SUFFIXES = {".png", ".jpg", ".jpeg"}
_VIEWS = ((0.0, 0.0, 1.0), (0.0, 0.0, 0.6), (0.4, 0.0, 0.6), (0.2, 0.4, 0.6))  # left, top, side, as shares


def photographs(folder: Path | None, preprocessing: Preprocessing, most: int = 64) -> Tensor:
    """Whole photos and parts of them, normalised: float32 [n, 3, height, width], n <= most.

    Photos are those of a folder, or those that scikit-image's package ships. The first half of what is
    returned is of other photos than the second, so that one can calibrate and the other measure.
    """
    root = folder or Path(str(files("skimage") / "data"))
    paths = [path for path in sorted(root.iterdir()) if path.suffix.lower() in _SUFFIXES]
    half = len(paths) // 2
    parts = [views(group, preprocessing)[: most // 2] for group in (paths[:half], paths[half:])]
    return torch.cat(parts)


def views(paths: list[Path], preprocessing: Preprocessing) -> Tensor:
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (preprocessing.mean, preprocessing.std))
    made = []
    for left, top, side in _VIEWS:
        for path in paths:
            pixels = torch.from_numpy(fit(part(path, left, top, side), preprocessing))
            made.append((pixels.permute(2, 0, 1) / 255 - mean) / std)
    return torch.stack(made)


def part(path: Path, left: float, top: float, side: float) -> NDArray[np.uint8]:
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    box = (left * width, top * height, (left + side) * width, (top + side) * height)
    return np.asarray(image.crop(tuple(round(value) for value in box)))
