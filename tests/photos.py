"""Real photos for tests: those that scikit-image's package ships, and copies made of them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from PIL import Image

# Beside others of the same scene, or next to no picture at all: chessboards, a logo, a phantom.
SIMILAR = {"motorcycle_right", "chessboard_GRAY", "chessboard_RGB", "color", "phantom", "logo", "horse"}


@cache
def photo_paths() -> dict[str, Path]:
    """The colour and grey photos that need no download, by name."""
    root = Path(str(files("skimage") / "data"))
    return {path.stem: path for path in sorted(root.iterdir()) if path.suffix in {".png", ".jpg", ".jpeg"}}


@cache
def photo(name: str) -> Image.Image:
    """One photo, RGB. Do not change it in place."""
    with Image.open(photo_paths()[name]) as image:
        return image.convert("RGB")


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def resized(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Without `share` of the width and height, evenly from all sides."""
    dx, dy = round(image.width * share / 2), round(image.height * share / 2)
    return image.crop((dx, dy, image.width - dx, image.height - dy))


def distinct_photos() -> list[str]:
    """Names of the photos of which no two show the same scene."""
    return [name for name in photo_paths() if name not in SIMILAR]


@dataclass(frozen=True)
class Archive:
    """A folder of photos, and the truth about it."""

    folder: Path
    groups: frozenset[frozenset[str]]  # names of the files that show the same picture
    unreadable: frozenset[str]
    photos: int  # files that are pictures


def plant_archive(folder: Path) -> Archive:
    """Fills a folder with every photo, four copies of some of them, and three files that are no pictures."""
    for name in distinct_photos():
        (folder / f"{name}.jpg").write_bytes(encode(photo(name), quality=92))
    groups = set()
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        original = photo(name)
        copies = {
            f"{name}.jpg": None,
            f"{name}-again.jpg": (folder / f"{name}.jpg").read_bytes(),
            f"sub/{name}-small.jpg": encode(resized(original, 0.4), quality=85),
            f"sub/{name}-recompressed.webp": encode(original, "WEBP", quality=30),
            f"sub/{name}-cropped.png": encode(cropped(original, 0.08), "PNG"),
        }
        (folder / "sub").mkdir(exist_ok=True)
        for file, data in copies.items():
            if data is not None:
                (folder / file).write_bytes(data)
        groups.add(frozenset(copies))
    bad = {
        "empty.jpg": b"",
        "cut.jpg": encode(photo("coffee"))[:4000],
        "text.png": b"this is not a picture",
    }
    for file, data in bad.items():
        (folder / file).write_bytes(data)
    photos = len(distinct_photos()) + 4 * len(groups)
    return Archive(folder, frozenset(groups), frozenset(bad), photos)
