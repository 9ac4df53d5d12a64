"""The photos that a user means: files and folders on the command line, and what is known of each file."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lookalike.cli.meter import waiting
from lookalike.cli.output import shown
from lookalike.records import Failure

ENDINGS = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
_SHARP_SIDE = 512
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 mean that the image lies on its side


@dataclass(frozen=True, slots=True)
class Photo:
    """A file as it was found. `path` is absolute, without links."""

    path: Path
    bytes: int
    modified: float
    """POSIX seconds."""
    reference: bool = False
    """Whether copies of it are looked for, while it stays where it is."""
    sharp: bool = False
    """Whether it is to be known how sharp it is."""

    @property
    def id(self) -> str:
        return shown(self.path)

    def attributes(self) -> dict[str, Any]:
        """What the server keeps of it: path, bytes, modified; width and height if its header can be read;
        where they are asked for, reference and sharpness.
        """
        known: dict[str, Any] = {"path": self.id, "bytes": self.bytes, "modified": self.modified}
        if self.reference:
            known["reference"] = True
        if self.sharp:
            known["sharpness"] = sharpness(self.path)
        return known | _upright_size(self.path)

    def is_unchanged_since(self, attributes: Any) -> bool:
        same = attributes.get("bytes") == self.bytes and attributes.get("modified") == self.modified
        marked = bool(attributes.get("reference")) == self.reference
        return bool(same and marked and (not self.sharp or "sharpness" in attributes))


@dataclass(frozen=True, slots=True)
class Found:
    """What is below the paths that a user named."""

    photos: list[Photo]
    """By path, each file once, however many ways lead to it."""
    unreadable: list[Failure]


def find_photos(paths: Sequence[Path]) -> Found:
    """All files named, and all files with the ending of an image in folders named, hidden ones left out.

    Links are followed, each folder is entered once. Raises click.UsageError when a path does not exist or no
    photo is found.
    """
    for path in paths:
        if not path.exists():
            raise click.UsageError(f"there is no file or folder {shown(path)!r}")
    with waiting("looking for photos"):
        found = _look(paths)
    if not found.photos:
        raise click.UsageError(_nothing_found(paths, found.unreadable))
    return found


def _look(paths: Sequence[Path]) -> Found:
    unreadable: list[Failure] = []
    photos: dict[Path, Photo] = {}
    for path in _files(paths, unreadable):
        real = Path(os.path.realpath(path))  # resolve() raises on a link to itself
        if real in photos:
            continue
        try:
            photos[real] = _looked_at(real)
        except OSError as error:
            unreadable.append(_failure(path, error))
    return Found([photos[path] for path in sorted(photos)], unreadable)


def _files(paths: Iterable[Path], unreadable: list[Failure]) -> Iterator[Path]:
    entered: set[tuple[int, int]] = set()
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, names in os.walk(
            path, followlinks=True, onerror=lambda error: unreadable.append(_failure(error.filename, error))
        ):
            here = os.stat(folder)
            if (here.st_dev, here.st_ino) in entered:
                folders.clear()
                continue
            entered.add((here.st_dev, here.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                if not name.startswith(".") and os.path.splitext(name)[1].lower() in ENDINGS:
                    yield Path(folder, name)


def _looked_at(path: Path) -> Photo:
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise OSError(0, "this is no ordinary file")  # opening a pipe would wait forever
    return Photo(path, about.st_size, about.st_mtime)


def _failure(path: str | Path, error: OSError) -> Failure:
    return Failure(str(path), "", "FILE_UNREADABLE", error.strerror or str(error))


def _nothing_found(paths: Sequence[Path], unreadable: Sequence[Failure]) -> str:
    where = ", ".join(repr(shown(path)) for path in paths)
    why = f" ({unreadable[0].source}: {unreadable[0].message})" if unreadable else ""
    return f"no photos in {where}{why}; looked for files ending in {' '.join(sorted(ENDINGS))}"


def _upright_size(path: Path) -> dict[str, int]:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # only the header is read, whatever it says
            with Image.open(path) as image:
                sideways = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
                width, height = image.size
    except Exception:  # Pillow's readers raise all sorts of things; the server will say what is wrong
        return {}
    return {"width": height, "height": width} if sideways else {"width": width, "height": height}


def sharpness(path: Path) -> float | None:
    """Variance of the Laplacian of the grey levels, 0..255, at 512 pixels of the longer side.

    So a copy that is larger but no sharper does not win by its size. None when the photo cannot be read.
    """
    import numpy as np
    from PIL import Image

    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image.draft("L", (_SHARP_SIDE, _SHARP_SIDE))
            scale = _SHARP_SIDE / max(image.size)
            size = (max(3, round(image.width * scale)), max(3, round(image.height * scale)))
            grey = np.asarray(image.convert("L").resize(size, Image.Resampling.BICUBIC), np.float32)
    except Exception:  # as above
        return None
    inner = grey[1:-1, 1:-1]
    edges = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return round(float(edges.var()), 3)
