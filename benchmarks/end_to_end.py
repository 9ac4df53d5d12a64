"""From files to a report: what `lookalike duplicates` does with many photos, and what each stage takes.

    python benchmarks/end_to_end.py PHOTOS [--files 10000] [--folder DIR] [--data DIR]

PHOTOS is a folder of distinct photos. Files are made of them until there are enough: each photo with quarters
cut out of it, turned and in other colours, some of which overlap so far that they count as copies, and copies
of a tenth at smaller sizes. With --folder and --data what was made and indexed stays there for the next run,
which then measures a run over a known archive. Prints one JSON object: seconds and share of each stage.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from lookalike import Client
from lookalike.cli.indexing import bring_up_to_date
from lookalike.cli.searching import Wish, find
from lookalike.report import Report, same_pixels, write_csv, write_html
from PIL import Image, ImageEnhance


def make(photos: Path, folder: Path, count: int) -> None:
    paths = sorted(photos.rglob("*.jpg"))
    chance = random.Random(0)
    for number in range(count):
        file = folder / f"{number % 100:02}" / f"{number:05}.jpg"
        if file.exists():
            continue
        file.parent.mkdir(exist_ok=True)
        with Image.open(paths[number % len(paths)]) as image:
            picture = image.convert("RGB")
        if number >= len(paths):
            picture = copied(picture, chance) if number % 10 == 0 else varied(picture, chance)
        picture.save(file, quality=85)


def copied(picture: Image.Image, chance: random.Random) -> Image.Image:
    scale = chance.uniform(0.5, 0.9)
    return picture.resize((round(picture.width * scale), round(picture.height * scale)))


def varied(picture: Image.Image, chance: random.Random) -> Image.Image:
    """A quarter of the picture, in other colours."""
    width, height = picture.width // 2, picture.height // 2
    left, top = chance.randrange(picture.width - width), chance.randrange(picture.height - height)
    part = picture.crop((left, top, left + width, top + height))
    return ImageEnhance.Color(part.rotate(chance.choice((0, 90, 180, 270)))).enhance(chance.uniform(0, 2))


def measure(folder: Path, data: Path, output: Path) -> dict[str, object]:
    seconds: dict[str, float] = {}

    started = time.perf_counter()

    def lap(stage: str) -> None:
        seconds[stage] = time.perf_counter() - started - sum(seconds.values())

    found = find(Wish([folder], [], "", None, None, "largest", False))
    lap("looking for files")
    with Client.embedded(data) as client:
        lap("starting the engine")
        collection = client.create_collection("archive", exist_ok=True)
        outcome = bring_up_to_date(collection, found.photos, forget_others=True)
        lap("reading, sending, embedding, storing")
        job = collection.start_duplicate_job()
        groups = client.jobs.finish(job.id)
        lap("job")
    paths = {photo.id: photo.path for photo in found.photos}
    same = same_pixels(groups, paths)
    lap("comparing pixels of groups")
    report = Report(groups, paths, photos_seen=len(found.photos), same_pixels=same)
    write_html(report, output / "report.html")
    write_csv(report, output / "groups.csv")
    lap("report")
    total = sum(seconds.values())
    return {
        "files": len(found.photos),
        "embedded": outcome.added,
        "groups": len(groups),
        "redundant": report.redundant,
        "seconds": round(total, 1),
        "stages": {name: [round(took, 2), round(took / total, 4)] for name, took in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only-make", action="store_true", help="make the files and stop")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as own:
        folder, data = asked.folder or Path(own, "photos"), asked.data or Path(own, "data")
        folder.mkdir(exist_ok=True)
        make(asked.photos, folder, asked.files)
        if not asked.only_make:
            print(json.dumps(measure(folder, data, Path(own))))


if __name__ == "__main__":
    main()
