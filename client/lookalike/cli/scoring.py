"""Pairs whose truth is known, with their scores: what a calibration learns from.

of copies    each photo of the collection that is on this machine is copied as people copy pictures, and every
             second one is searched as it is too; a hit is the same picture when it is that photo, and another
             one otherwise
of labels    pairs of items that somebody looked at, in a CSV file: id, id, label
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from lookalike import Collection
from lookalike.cli.output import plural, shown
from lookalike.records import Hit, Hits, Item

TOP = 10
"""Hits of a copy that count."""
STRANGERS = 4
"""One copy in so many is searched as though its photo were not there: not every query has a match."""
PLAIN = 2
"""One photo in so many is searched without an edit besides: such queries match more pictures that are others,
and thresholds set without them let too many pass (docs/quality.md)."""
_FETCHED = 4 * TOP
_AT_ONCE = 16
_LEAST_PHOTOS = (
    13  # four copies of each make 52; with a fourth of them strangers that is too few, and is told
)

_LABELS = {"1": True, "true": True, "yes": True, "same": True}
_LABELS |= {"0": False, "false": False, "no": False, "different": False}

T = TypeVar("T")


@dataclass
class Scored:
    """Pairs of a query and an item, as `Collection.calibrate` takes them.

    Attributes:
        undecided: pairs left out because the item is as alike to the photo itself as a copy: who knows.
        unreadable: photos that no copy could be made of.
    """

    scores: list[float] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)
    missed: int = 0
    undecided: int = 0
    unreadable: list[Path] = field(default_factory=list)

    def add(self, score: float, same: bool, picture: int) -> None:
        self.scores.append(score)
        self.same.append(same)
        self.pictures.append(picture)


@dataclass(frozen=True)
class _Original:
    """A photo of the collection: its number, its file, and what is the same picture or may be."""

    number: int
    path: Path
    own: frozenset[str]
    undecided: frozenset[str]


def photos_of(collection: Collection, most: int, seed: int) -> tuple[list[Item], dict[bytes, set[str]]]:
    """Up to `most` items whose files are on this machine, drawn at random, and ids by the file's digest."""
    items = list(collection.items())
    same_file: dict[bytes, set[str]] = {}
    for item in items:
        if item.digest:
            same_file.setdefault(item.digest, set()).add(item.id)
    here = [item for item in items if _path(item) is not None]
    if len(here) < _LEAST_PHOTOS:
        raise click.ClickException(
            f"{len(here)} of {plural(len(items), 'item')} of {collection.name!r} name a file on this machine "
            f'in their attribute "path"; {_LEAST_PHOTOS} at least are needed to make copies of. Index photos '
            "with `lookalike index`, or give labelled pairs with --pairs"
        )
    chosen = random.Random(seed).sample(here, min(most, len(here)))
    return sorted(chosen, key=lambda item: item.id), same_file


def query_count(photos: int, copies: int) -> int:
    """How many queries are made of so many photos."""
    return photos * copies + -(-photos // PLAIN)


def of_copies(
    collection: Collection,
    items: Sequence[Item],
    same_file: dict[bytes, set[str]],
    *,
    copies: int,
    threshold: float,
    seed: int,
    normalize: bool,
    advance: Callable[[int], None],
) -> Scored:
    """Searches copies of the items' files.

    Args:
        threshold: items at least so similar to a photo itself may be the same picture: they do not count.
        normalize: searches with normalised scores.
        advance: called with the number of copies searched.
    """
    scored, searched = Scored(), 0
    originals = _originals(collection, items, same_file, threshold)
    for batch in _batched(_copies(originals, copies, seed, scored)):
        found: list[Hits] = collection.search(
            [pixels for _, pixels in batch], k=_FETCHED, normalize=normalize
        )
        for (original, _), hits in zip(batch, found, strict=True):
            _count(scored, original, hits, stranger=searched % STRANGERS == STRANGERS - 1)
            searched += 1
        advance(searched)
    return scored


def _originals(
    collection: Collection, items: Sequence[Item], same_file: dict[bytes, set[str]], threshold: float
) -> list[_Original]:
    originals = []
    for batch in _batched(iter(enumerate(items))):
        near: list[Hits] = collection.search(
            id=[item.id for _, item in batch], k=_FETCHED, min_score=threshold
        )
        for (number, item), hits in zip(batch, near, strict=True):
            own = frozenset({item.id} | same_file.get(item.digest, set()))
            undecided = frozenset(hit.id for hit in hits) - own
            originals.append(_Original(number, Path(item.attributes["path"]), own, undecided))
    return originals


def _copies(
    originals: Sequence[_Original], copies: int, seed: int, scored: Scored
) -> Iterator[tuple[_Original, Any]]:
    from lookalike_extractor.copies import random_copy, seeded
    from lookalike_extractor.errors import ImageError
    from lookalike_extractor.fitting import read_photo
    from lookalike_extractor.unseen import UNSEEN

    for original in originals:
        try:
            photo = read_photo(original.path)
        except (ImageError, OSError):
            scored.unreadable.append(original.path)
            continue
        if original.number % PLAIN == 0:
            yield original, np.asarray(photo)
        for number in range(copies):
            chance = seeded(seed, original.path.name, number)
            yield original, np.asarray(random_copy(photo, chance, photo, edits=UNSEEN))


def _count(scored: Scored, original: _Original, hits: Sequence[Hit], *, stranger: bool) -> None:
    own = [hit for hit in hits if hit.id in original.own]
    others = [hit for hit in hits if hit.id not in original.own | original.undecided]
    scored.undecided += len(hits) - len(own) - len(others)
    for hit in others[:TOP]:
        scored.add(hit.score, False, original.number)
    if not stranger:
        scored.missed += not own
        for hit in own[:1]:  # equal files have equal scores: one stands for all
            scored.add(hit.score, True, original.number)


def of_labels(collection: Collection, file: Path) -> Scored:
    """Scores labelled pairs of items. Raises click.UsageError, with the line, for what cannot be used."""
    pairs = _labelled(file)
    ids = list(dict.fromkeys(item_id for _, *both, _ in pairs for item_id in both))
    found = collection.get(ids, allow_missing=True, descriptors=True)
    vectors = {item.id: item.descriptor for item in found if item.descriptor is not None}
    unknown = [(line, item_id) for line, *both, _ in pairs for item_id in both if item_id not in vectors]
    if unknown:
        told = ", ".join(f"{item_id!r} (line {line})" for line, item_id in unknown[:3])
        more = f" and {len(unknown) - 3:,} more" if len(unknown) > 3 else ""
        raise click.UsageError(
            f"{shown(file)} names items that {collection.name!r} does not have: {told}{more}"
        )
    numbers = {item_id: number for number, item_id in enumerate(ids)}
    scored = Scored()
    for _, first, second, same in pairs:
        scored.add(float(vectors[first] @ vectors[second]), same, numbers[first])
    return scored


def _labelled(file: Path) -> list[tuple[int, str, str, bool]]:
    """(line, id, id, whether they are the same) of each row; a first row without a label is a heading."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            rows = [(number, row) for number, row in enumerate(csv.reader(text), 1) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise click.UsageError(f"{shown(file)} cannot be read as CSV: {error}") from None
    pairs = []
    for place, (line, row) in enumerate(rows):
        label = _LABELS.get(row[2].strip().lower()) if len(row) == 3 else None
        if label is not None:
            pairs.append((line, row[0], row[1], label))
        elif place or len(row) != 3:
            raise click.UsageError(
                f"{shown(file)}, line {line}: expected id, id and a label (1 or 0, same or different), got "
                f"{','.join(row)[:80]!r}"
            )
    if not pairs:
        raise click.UsageError(f"{shown(file)} holds no pairs; each line is id, id, label")
    return pairs


def _path(item: Item) -> Path | None:
    path = item.attributes.get("path")
    return Path(path) if isinstance(path, str) and Path(path).is_file() else None


def _batched(values: Iterator[T]) -> Iterator[list[T]]:
    while batch := list(islice(values, _AT_ONCE)):
        yield batch
