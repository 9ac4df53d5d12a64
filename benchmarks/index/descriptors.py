"""Writes the descriptors of photos and of pictures made of them, for `run.py --vectors`.

    python benchmarks/index/descriptors.py PHOTOS FILE.npy

Of each photo: itself, its mirror image, a part, the part's mirror image, and each of these in grey; as the
default recipe describes them. What is in the file already is not made again, so that it can be ended and
goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from lookalike_extractor.descriptor import load_descriptor_models
from lookalike_extractor.preprocessing import fit
from lookalike_extractor.recipe import RECIPES
from PIL import Image, ImageOps

_SAVED_EVERY = 25


def variants(path: Path) -> list[Image.Image]:
    with Image.open(path) as opened:
        whole = ImageOps.exif_transpose(opened).convert("RGB")
    width, height = whole.size
    part = whole.crop((width // 5, height // 10, width // 5 + width * 3 // 5, height // 10 + height * 3 // 5))
    coloured = [whole, ImageOps.mirror(whole), part, ImageOps.mirror(part)]
    return coloured + [image.convert("L").convert("RGB") for image in coloured]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    (model,) = load_descriptor_models([next(iter(RECIPES.values()))])
    model.eval()
    photos = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in {".jpg", ".png"})
    done = [np.load(options.file)] if options.file.exists() else []
    first = sum(map(len, done)) // 8
    for number, path in enumerate(photos[first:], first + 1):
        pixels = np.stack([fit(np.asarray(image), model.preprocessing) for image in variants(path)])
        with torch.inference_mode():
            (rows,) = model(torch.from_numpy(pixels).permute(0, 3, 1, 2)).values()
        done.append(rows.numpy())
        if number % _SAVED_EVERY == 0 or number == len(photos):
            np.save(options.file, np.concatenate(done))
            print(f"{number} of {len(photos)} photos", end="\r", flush=True)


if __name__ == "__main__":
    main()
