"""Tells people apart by their faces: `python benchmarks/quality/faces.py PEOPLE --weights faces.safetensors`.

PEOPLE is a folder with a subfolder for each person, of pictures whose largest face is theirs. Each picture is
described as it is and with seven edits. Prints how many faces were found, how far apart those of one person
and of two people are, and the error rates of verification, also without pairs of one picture's own edits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from lookalike_extractor.descriptor import DescriptorModel, load_descriptor_models
from lookalike_extractor.edits import downscale, flip, grey, jpeg
from lookalike_extractor.errors import NoFace
from lookalike_extractor.fitting import read_photo
from lookalike_extractor.preprocessing import fit
from lookalike_extractor.recipe import face_recipe
from metrics import Floats, verification
from PIL import Image

DLIBS = 0.6
"""The distance up to which dlib takes two faces for one person's."""
BATCH = 16


def _cropped(image: Image.Image) -> Image.Image:
    """A tenth off each side."""
    dx, dy = image.width // 10, image.height // 10
    return image.crop((dx, dy, image.width - dx, image.height - dy))


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "mirrored": flip,
    "grey": grey,
    "turned by 15 degrees": lambda image: image.rotate(15, Image.Resampling.BILINEAR),
    "half the size": lambda image: downscale(image, max(image.size) // 2),
    "a tenth cut off each side": _cropped,
    "darkened": lambda image: image.point(lambda value: round(0.6 * value)),
    "JPEG 10": lambda image: jpeg(image, 10),
}


def faces_of(folder: Path, model: DescriptorModel) -> tuple[list[np.ndarray], list[str], list[str]]:
    """The largest face of each picture with each edit, upright; whose it is, and of which picture."""
    faces, people, pictures, missed = [], [], [], []
    paths = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"})
    for path in paths:
        for name, edit in EDITS.items():
            try:
                faces.append(fit(np.asarray(edit(read_photo(path))), model.preprocessing))
            except NoFace:
                missed.append(f"{path.name} {name}")
                continue
            people.append(path.parent.name)
            pictures.append(str(path))
    print(f"{len(faces)} faces of {len(set(people))} people in {len(set(pictures))} of {len(paths)} pictures")
    if missed:
        print(f"none found in {len(missed)}: {', '.join(missed)}")
    return faces, people, pictures


@torch.inference_mode()
def described(model: DescriptorModel, faces: list[np.ndarray]) -> Floats:
    """Pooled features [n, 128], with their lengths."""
    rows, waiting = [], iter(faces)
    while batch := list(islice(waiting, BATCH)):
        pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)
        rows.append(model.heads[0].pooled(model.features(pixels))[0].numpy())
    return np.concatenate(rows)


def report(name: str, distances: Floats, same: np.ndarray) -> None:
    true, false = distances[same], distances[~same]
    if not len(true) or not len(false):
        print(f"{name}: {len(true)} of one person, {len(false)} of two people; nothing to compare")
        return
    told = verification(-true, -false)
    print(
        f"{name}: {len(true)} of one person, at most {true.max():.2f} apart, {(true <= DLIBS).mean():.1%} "
        f"up to {DLIBS}; {len(false)} of two people, at least {false.min():.2f} apart, "
        f"{(false <= DLIBS).mean():.1%} up to {DLIBS}; EER {told.equal_error_rate:.3f}, "
        f"TAR at FAR .01 {told.accepted[0]:.3f}, at .001 {told.accepted[1]:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("people", type=Path)
    parser.add_argument("--weights", required=True, help="what `lookalike faces fetch` wrote")
    wanted = parser.parse_args()
    (model,) = load_descriptor_models([face_recipe(wanted.weights)])
    faces, people, pictures = faces_of(wanted.people, model)
    rows = described(model, faces)
    first, second = np.triu_indices(len(rows), 1)
    distances = np.linalg.norm(rows[first] - rows[second], axis=1)
    whose, where = np.array(people), np.array(pictures)
    same, apart = whose[first] == whose[second], where[first] != where[second]
    report("all pairs", distances, same)
    report("pairs of different pictures", distances[apart], same[apart])


if __name__ == "__main__":
    main()
