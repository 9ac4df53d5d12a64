"""The report for people: one HTML file that works without a network, thumbnails and all.

The page holds the data of all groups as one JSON text, and the thumbnails of each group as a text of their
own. Its script builds a group only when it comes near the screen, so thousands of groups open at once. Names
of files
are hostile until shown otherwise: they reach the page as JSON and the screen as text nodes, never as markup,
    and the page's policy lets no script run but its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from lookalike.records import DuplicateGroup

from .contents import Photo, Report
from .files import written_whole
from .tables import COLUMNS
from .thumbnails import thumbnails

_SIDES = ((4_000, 288), (16_000, 192), (10**9, 128))  # up to so many photos: thumbnails of so many pixels
_MOST_THUMBNAILS = 60  # of a group; the page shows the rest from their files
_SAME, _MISSING, _ON_DISK = "=", "-", "~"  # instead of a thumbnail; none of them is base64's

Progress = Callable[[int, int], None]


def write_html(report: Report, path: Path, *, progress: Progress = lambda done, total: None) -> None:
    """Writes the report as one self-contained page. progress: called with (groups written, groups).

    A photo that has vanished, or that cannot be read any more, gets a placeholder. Memory does not grow with
    the number of thumbnails.
    """
    # "replace": names of files that are no UTF-8 are only shown here; the JSON in the page keeps them whole.
    with warnings.catch_warnings(), written_whole(path, errors="replace") as file:
        warnings.simplefilter("ignore")  # of photos with odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # a placeholder, not gigabytes
        file.writelines(_page(report, progress))


def _page(report: Report, progress: Progress) -> Iterator[str]:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=number, size=size)
    script = _resource("report.js")
    return environment.from_string(_resource("report.html")).generate(
        report=report,
        style=_resource("report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_data(report),
        thumbnails=_thumbnails(report, progress),
    )


def _resource(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")


def _data(report: Report) -> Iterator[str]:
    """The groups as JSON that may stand in a script element, in pieces."""
    head = {"created": report.created.isoformat(), "columns": COLUMNS}
    yield _script_json(head)[:-1] + ',"groups":['
    for number_, group in enumerate(report.groups):
        yield (",\n" if number_ else "\n") + _script_json([_photo(photo) for photo in report.photos(group)])
    yield "\n]}"


def _script_json(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"))  # ASCII; half characters of odd file names survive
    return text.replace("<", "\\u003c")  # so nothing in it can end the element


def _photo(photo: Photo) -> dict[str, Any]:
    known = {
        "id": photo.id,
        "path": None if photo.path is None else str(photo.path),
        "uri": None if photo.path is None else photo.path.absolute().as_uri(),
        "similarity": round(photo.similarity, 6),
        "identical": photo.identical or None,
        "same_pixels": photo.same_pixels or None,
        "protected": photo.protected or None,
        "width": photo.width,
        "height": photo.height,
        "bytes": photo.bytes,
        "modified": photo.modified and photo.modified.isoformat(),
    }
    return {name: value for name, value in known.items() if value is not None}


def _thumbnails(report: Report, progress: Progress) -> Iterator[str]:
    """For each group, its thumbnails in base64, one word for each photo."""
    photos = sum(len(group.members) for group in report.groups)
    side = next(side for most, side in _SIDES if photos <= most)
    wanted = (photo.path for group in report.groups for photo in _pictured(report, group))
    made = thumbnails(wanted, side)
    for done, group in enumerate(report.groups, 1):
        pictures = islice(made, sum(1 for _ in _pictured(report, group)))
        yield " ".join(
            _SAME if _repeats(photo) else _word(next(pictures)) if place < _MOST_THUMBNAILS else _ON_DISK
            for place, photo in enumerate(report.photos(group))
        )
        progress(done, len(report.groups))


def _pictured(report: Report, group: DuplicateGroup) -> Iterator[Photo]:
    """The photos of a group that get a thumbnail of their own."""
    return (photo for photo in islice(report.photos(group), _MOST_THUMBNAILS) if not _repeats(photo))


def _repeats(photo: Photo) -> bool:
    return photo.identical and not photo.representative


def _word(picture: bytes | None) -> str:
    return _MISSING if picture is None else base64.b64encode(picture).decode()


def number(value: int) -> str:
    return f"{value:,}"


def size(value: int) -> str:
    """Bytes for people: 999 B, 1.2 MB, 34 GB."""
    amount, units = float(value), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while amount >= 999.5 and (larger := next(units, None)):
        amount, unit = amount / 1000, larger
    return f"{amount:.1f} {unit}" if unit != "B" and amount < 9.95 else f"{amount:,.0f} {unit}"
