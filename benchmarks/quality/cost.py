"""What the second recipe of one forward pass costs: `python benchmarks/quality/cost.py PHOTOS`.

Describes the same batches with `near_duplicate` alone, `semantic` alone and both at once, in turn, many
times, and compares the CPU times of each round: what else the machine does then takes from all three alike.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from lookalike_extractor.descriptor import DescriptorModel, load_descriptor_models
from lookalike_extractor.fitting import read_photo
from lookalike_extractor.preprocessing import fit
from lookalike_extractor.recipe import RECIPES

BATCH, BATCHES = 16, 4
CHOICES = {
    "near_duplicate": ("near_duplicate",),
    "semantic": ("semantic",),
    "both": ("near_duplicate", "semantic"),
}


def batches(folder: Path, model: DescriptorModel) -> list[torch.Tensor]:
    """uint8 [BATCH, 3, h, w] each, of the folder's first photos."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    photos = [fit(np.asarray(read_photo(path)), model.preprocessing) for path in paths[: BATCH * BATCHES]]
    return list(torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).split(BATCH))


@torch.inference_mode()
def measured(models: dict[str, DescriptorModel], pixels: list[torch.Tensor], rounds: int) -> np.ndarray:
    """CPU milliseconds of one image, [rounds, models]; another model goes first in each round."""
    names, times = list(models), np.zeros((rounds, len(models)))
    for number in range(-3, rounds):  # the first three warm up
        batch = pixels[number % len(pixels)]
        for place in np.roll(np.arange(len(names)), number):
            start = time.process_time()
            models[names[place]](batch)
            if number >= 0:
                times[number, place] = 1000 * (time.process_time() - start) / len(batch)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    models = {
        name: load_descriptor_models([RECIPES[recipe] for recipe in recipes])[0]
        for name, recipes in CHOICES.items()
    }
    times = measured(models, batches(wanted.photos, models["both"]), wanted.rounds)
    for name, column in zip(models, times.T, strict=True):
        print(f"{name}: {np.median(column):.1f} ms of CPU time for one image")
    for name, column in zip(models, times.T, strict=True):
        if name != "both":
            low, middle, high = np.quantile(times[:, -1] / column, (0.25, 0.5, 0.75)) - 1
            print(f"both against {name}: {middle:+.1%} (quartiles {low:+.1%} to {high:+.1%})")


if __name__ == "__main__":
    main()
