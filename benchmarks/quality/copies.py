"""Copies of known kinds among many photos: what each method finds, and how much of what it says is right.

    python benchmarks/quality/copies.py PHOTOS [--copies-of 100] [--imagededup PYTHON] [--folder DIR]

PHOTOS is a folder of distinct photos. Of some of them, spread evenly over those that the packaged fit has not
seen, one copy of each kind is made and put among all photos. Each method is used as it comes: Lookalike with
its recipe's threshold; the perceptual hash of package imagehash at up to 10 different bits of 64. With the
Python of an environment that holds imagededup, its perceptual hash and its CNN method at their default
thresholds too: that one with EfficientNet-Lite0's pooled last features, the backbone that Lookalike uses,
since its own weights come from the network.

With --folder the files and what each method found stay there, for a run with the same photos that goes on.

Prints a table: for each kind the share of copies that a method joins with their photo, and for each method
the share of the pairs it reports that are of one photo, both with their 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import imagehash
import numpy as np
from lookalike.records import share_interval
from lookalike_extractor.descriptor import load_descriptor_models
from lookalike_extractor.fitting import read_photo
from lookalike_extractor.recipe import RECIPES
from lookalike_server.duplicates import Asked, find_duplicates
from threshold import EDITS, describe

Pairs = set[tuple[int, int]]

HASH_BITS = 10
WRITTEN_QUALITY = 92


@dataclass(frozen=True)
class Album:
    """Files, and of each the photo that it shows and the kind of copy it is, "" for the photo itself."""

    files: list[Path]
    shows: np.ndarray
    kinds: list[str]


def plant(photos: Path, folder: Path, copies_of: int) -> Album:
    paths = sorted(photos.rglob("*.jpg"))
    unseen = range(1, len(paths), 2)
    chosen = unseen[:: max(1, len(unseen) // copies_of)][:copies_of]
    files, shows, kinds = [], [], []
    for number, path in enumerate(paths):
        for kind in ("", *EDITS) if number in chosen else ("",):
            files.append(folder / f"{len(files):05}.jpg")
            shows.append(number)
            kinds.append(kind)
            if not files[-1].exists():
                write_copy(path, kind, files[-1])
    return Album(files, np.array(shows), kinds)


def write_copy(path: Path, kind: str, file: Path) -> None:
    picture = read_photo(path)
    if kind:
        picture = EDITS[kind](picture)
    draft = file.with_suffix(".tmp")
    picture.convert("RGB").save(draft, "JPEG", quality=WRITTEN_QUALITY)
    draft.rename(file)


def lookalike_pairs(album: Album) -> Pairs:
    recipe = RECIPES["near_duplicate"]
    model = load_descriptor_models([recipe])[0].eval()
    descriptors = describe(model, recipe.name, map(read_photo, album.files))
    count = len(descriptors)
    ids = [f"{number:05}" for number in range(count)]
    asked = Asked(recipe.duplicate_threshold)
    found = find_duplicates(ids, descriptors, [b""] * count, [""] * count, asked)
    return {pair for group in found.groups for pair in combinations(sorted(m.row for m in group.members), 2)}


def hash_pairs(album: Album) -> Pairs:
    bits = np.stack([imagehash.phash(read_photo(file)).hash.ravel() for file in album.files])
    signs = 2 * bits.astype(np.float32) - 1
    different = (signs.shape[1] - signs @ signs.T) / 2
    return set(zip(*np.nonzero(np.triu(different <= HASH_BITS, 1)), strict=True))


def imagededup_pairs(album: Album, python: Path, method: str) -> Pairs:
    command = [python, Path(__file__).with_name("run_imagededup.py"), method, album.files[0].parent]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = ((int(a[:5]), int(b[:5])) for a, b in json.loads(text.splitlines()[-1]))
    return {(min(pair), max(pair)) for pair in found}


def kept(file: Path, find: Callable[[], Pairs]) -> Pairs:
    """What is in the file; what is found goes there."""
    if not file.exists():
        file.write_text(json.dumps([(int(a), int(b)) for a, b in sorted(find())]))
    return {(a, b) for a, b in json.loads(file.read_text())}


def table(album: Album, methods: dict[str, Pairs]) -> Iterable[str]:
    first = {show: number for number, (show, kind) in enumerate(zip(album.shows, album.kinds, strict=True))
             if not kind}  # fmt: skip
    yield "| | " + " | ".join(methods) + " |"
    yield "|---" * (len(methods) + 1) + "|"
    for kind in EDITS:
        wanted = {
            (first[show], number)
            for number, (show, own) in enumerate(zip(album.shows, album.kinds, strict=True))
            if own == kind
        }
        yield (
            f"| {kind} | "
            + " | ".join(_share(len(wanted & pairs), len(wanted)) for pairs in methods.values())
            + " |"
        )
    every = {(first[show], number) for number, show in enumerate(album.shows) if album.kinds[number]}
    yield (
        "| **all copies found** | "
        + " | ".join(_share(len(every & pairs), len(every)) for pairs in methods.values())
        + " |"
    )
    right = {name: sum(album.shows[a] == album.shows[b] for a, b in pairs) for name, pairs in methods.items()}
    yield (
        "| **pairs that are right** | "
        + " | ".join(
            f"{_share(int(right[name]), len(pairs))} of {len(pairs):,}" for name, pairs in methods.items()
        )
        + " |"
    )


def _share(part: int, whole: int) -> str:
    if not whole:
        return "-"
    low, high = share_interval(part, whole)
    return f"{part / whole:.3f} ({low:.2f}-{high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--copies-of", type=int, default=100)
    parser.add_argument("--imagededup", type=Path, metavar="PYTHON")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as own:
        folder = asked.folder or Path(own)
        (folder / "files").mkdir(parents=True, exist_ok=True)
        album = plant(asked.photos, folder / "files", asked.copies_of)
        finders = {
            "Lookalike": partial(lookalike_pairs, album),
            "perceptual hash": partial(hash_pairs, album),
        }
        if asked.imagededup:
            for method in ("hash", "CNN"):
                finders[f"imagededup, {method}"] = partial(imagededup_pairs, album, asked.imagededup, method)
        methods = {name: kept(folder / f"{name}.json", find) for name, find in finders.items()}
    print(f"{len(album.files):,} files\n")
    print("\n".join(table(album, methods)))


if __name__ == "__main__":
    main()
