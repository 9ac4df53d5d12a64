"""What a duplicate threshold finds, and what it takes for copies that are none.

    python benchmarks/quality/threshold.py PHOTOS [--recipe near_duplicate] [--copies-of 100]

PHOTOS is a folder of distinct photos. Prints the most alike pairs among all of them, which a threshold must
stay above, and for each light edit the share of copies that reach each threshold. Copies are made of every
other photo, sorted by path: those that the packaged fit has not seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from lookalike_extractor.descriptor import DescriptorModel, load_descriptor_models
from lookalike_extractor.edits import downscale, flip, grey, jpeg
from lookalike_extractor.fitting import read_photo
from lookalike_extractor.preprocessing import fit
from lookalike_extractor.recipe import RECIPES
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

THRESHOLDS = (0.60, 0.65, 0.67, 0.70, 0.75)
BATCH = 16


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Without `share` of the width and height, evenly from all sides."""
    dx, dy = round(image.width * share / 2), round(image.height * share / 2)
    return image.crop((dx, dy, image.width - dx, image.height - dy))


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half the size": lambda image: downscale(image, max(image.size) // 2),
    "a quarter of the size": lambda image: downscale(image, max(image.size) // 4),
    "JPEG 30": lambda image: jpeg(image, 30),
    "JPEG 10": lambda image: jpeg(image, 10),
    "10 % of each side cut off": lambda image: cropped(image, 0.1),
    "20 % of each side cut off": lambda image: cropped(image, 0.2),
    "brighter by a quarter": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "mirrored": flip,
    "grey": grey,
    "a white frame": lambda image: ImageOps.expand(image, max(image.size) // 20, "white"),
    "5 % cut off, at 40 %, JPEG 30": lambda i: jpeg(
        downscale(cropped(i, 0.05), round(max(i.size) * 0.4)), 30
    ),
}


def describe(model: DescriptorModel, recipe: str, pictures: Iterable[Image.Image]) -> NDArray[np.float32]:
    """Descriptors float32 [n, d] of pictures."""
    rows = []
    waiting = iter(pictures)
    while batch := list(islice(waiting, BATCH)):
        pixels = np.stack([fit(np.asarray(picture), model.preprocessing) for picture in batch])
        with torch.inference_mode():
            rows.append(model(torch.from_numpy(pixels).permute(0, 3, 1, 2))[recipe].numpy())
    return np.concatenate(rows)


def most_alike(paths: list[Path], descriptors: NDArray[np.float32], most: int = 5) -> None:
    """Prints the pairs of different photos that are most alike."""
    similarities = np.triu(descriptors @ descriptors.T, k=1)
    print(f"most alike among {len(paths):,} photos:")
    for place in np.argsort(similarities, axis=None)[::-1][:most]:
        row, column = np.unravel_index(place, similarities.shape)
        print(f"  {similarities[row, column]:.3f}  {paths[row].name}  {paths[column].name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--recipe", default="near_duplicate", choices=list(RECIPES))
    parser.add_argument("--copies-of", type=int, default=100)
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.recipe]
    model = load_descriptor_models([recipe])[0].eval()
    paths = sorted(arguments.photos.rglob("*.jpg"))
    descriptors = describe(model, recipe.name, map(read_photo, paths))
    most_alike(paths, descriptors)

    unseen = range(1, len(paths), 2)
    chosen = unseen[:: max(1, len(unseen) // arguments.copies_of)][: arguments.copies_of]
    print(f"copies of {len(chosen)} photos that reach  " + "  ".join(f"{t:.2f}" for t in THRESHOLDS))
    reached = []
    for name, edit in EDITS.items():
        copies = describe(model, recipe.name, (edit(read_photo(paths[i])) for i in chosen))
        scores = np.einsum("nd,nd->n", copies, descriptors[list(chosen)])
        reached.append([float(np.mean(scores >= threshold)) for threshold in THRESHOLDS])
        print(f"  {name:32s}" + "  ".join(f"{share:.2f}" for share in reached[-1]))
    print(f"  {'all':32s}" + "  ".join(f"{share:.2f}" for share in np.mean(reached, axis=0)))


if __name__ == "__main__":
    main()
