"""Real photos for tests: those that scikit-image's package ships, and copies made of them."""

from __future__ import annotations

import io
from functools import cache
from importlib.resources import files
from pathlib import Path

from PIL import Image


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
