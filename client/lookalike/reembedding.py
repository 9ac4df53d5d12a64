"""A collection made anew with another recipe, from the pictures that its items came from.

    source, as it was written - what the copy lacks - the item's file, unchanged - streaming upsert - copy
    the same for what was written meanwhile, until nothing is left; then the alias, in one step

Collections keep no pictures, so their files must still be there. Nothing is noted down anywhere: an item is
done when the copy has it with the same attributes and digest. Who is killed starts again, and goes on.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from lookalike import _entries
from lookalike.client import Client
from lookalike.collection import PAGE, Collection
from lookalike.errors import FailedPrecondition, ImageUnusable, InvalidArgument
from lookalike.images import ImageLike
from lookalike.progress import Progress
from lookalike.records import AddReport, CollectionInfo, Failure, Item, ReembedReport
from lookalike.v1 import types_pb2

_SHORT_SECONDS = 2.0
_FOREVER = 2**64

Pictures = Callable[[Item], "ImageLike | None"]


def file_of(item: Item) -> str | None:
    """The file that an item was made from: its attribute "path", or its id where that is an absolute path."""
    path = item.attributes.get("path")
    if isinstance(path, str):
        return path
    return item.id if os.path.isabs(item.id) else None


def reembed(
    source: Collection,
    name: str,
    recipe: str,
    *,
    alias: str = "",
    pictures: Pictures = file_of,
    allow_missing: bool = False,
    delete_others: bool = False,
    progress: bool | Callable[[Progress], None] = False,
) -> ReembedReport:
    """Copies a collection to a new one of another recipe, with ids, attributes and indexes on attributes.

    The source stays as it is and may be written to meanwhile; the copy takes that over, deletions too. May
    be stopped and called again: what is there already is not sent again. An item whose picture is gone, or is
    not the one that the item was made from, is left out and named in the report.

    Args:
        name: of the copy; made when it is not there.
        recipe: of the copy.
        alias: stands for the copy from the moment that all is there. Where it stands for the source now, no
            caller notices more than other scores.
        pictures: gives the picture of an item, as it was added; None when there is none.
        allow_missing: switches the alias also when items had to be left out.
        delete_others: deletes items of the copy that the source does not have.

    Raises InvalidArgument when the source has that recipe already, FailedPrecondition for a copy that is in
    use under an alias, or has items that the source does not have.
    """
    client, info = source._client, source.info()
    _check_wanted(client, info, name, recipe, alias)
    copy = client.create_collection(name, recipe, attribute_indexes=info.attribute_indexes, exist_ok=True)
    _check_idle(copy.info())
    work = _Copying(Collection(client, info.name), copy, pictures)
    work.check_others(delete=delete_others)
    work.catch_up(progress)
    switched = bool(alias) and (allow_missing or not work.missing)
    if switched:
        work.switch(alias)
    return ReembedReport(
        copy.info().item_count, work.copied, work.deleted, tuple(work.missing.values()), switched
    )


def _check_wanted(client: Client, info: CollectionInfo, name: str, recipe: str, alias: str) -> None:
    """Raises what would otherwise come to light when all is done."""
    if any(one.name == recipe and one.space.id == info.space.id for one in client.recipes()):
        raise InvalidArgument(f"collection {info.name!r} has recipe {recipe!r} already", "ARGUMENT_INVALID")
    for other in client.collections() if alias else ():
        if alias in (other.name, name):
            raise InvalidArgument(f"{alias!r} is a collection and cannot be an alias", "ARGUMENT_INVALID")
        if alias in other.aliases and other.name != info.name:
            raise FailedPrecondition(
                f"{alias!r} stands for {other.name!r}, not for {info.name!r}", "COLLECTION_ALIASED"
            )


def _check_idle(copy: CollectionInfo) -> None:
    if copy.aliases:
        raise FailedPrecondition(
            f"{copy.name!r} is in use as {', '.join(map(repr, copy.aliases))}: what was written to it there "
            "would be replaced by what the source has",
            "COLLECTION_ALIASED",
        )


class _Copying:
    """A copy under way.

    Args:
        source, copy: by their own names, whatever an alias stands for by and by.
        pictures: gives the picture of an item.
    """

    def __init__(self, source: Collection, copy: Collection, pictures: Pictures) -> None:
        self._source = source
        self._copy = copy
        self._pictures = pictures
        self._limits = source._client.limits()
        self._seen = 0
        """The last write of the source that the copy has taken over."""
        self._own = _FOREVER
        """The last write to the copy that was ours: later ones are others', through the alias."""
        self.copied = self.deleted = 0
        self.missing: dict[str, Failure] = {}

    def check_others(self, *, delete: bool) -> None:
        """Deletes items of the copy that the source does not have; raises when that was not asked for."""
        others = self._others()
        if not delete and (first := next(others, None)) is not None:
            count = 1 + sum(1 for _ in others)
            raise FailedPrecondition(
                f"{count:,} of the items of {self._copy.name!r} are not in {self._source.name!r}, "
                f"as {first!r}: choose another name, or have them deleted",
                "COPY_HAS_OTHERS",
            )
        self._delete(others)

    def catch_up(self, progress: bool | Callable[[Progress], None] = False) -> None:
        """Takes over what was written to the source, again and again until nothing, or little, is left."""
        while (info := self._source.info()).sequence != self._seen:
            start, first = time.monotonic(), not self._seen
            total = max(0, info.item_count - self._copy.info().item_count) if first else None
            self._take(self._copy._write(self._wanting(), total, first and progress, None))
            self._seen = info.sequence
            if not first and time.monotonic() - start < _SHORT_SECONDS:
                break  # others write without a pause: what is left follows after the switch
        if self._source.info().item_count - len(self.missing) != self._copy.info().item_count:
            self._delete(self._others())

    def switch(self, alias: str) -> None:
        """Then writes that were on their way to the source follow, but nothing that others have replaced."""
        self._own = self._copy.info().sequence
        self._source._client.set_alias(alias, self._copy.name)
        self.catch_up()

    def _wanting(self) -> Iterator[_entries.Entry[Any]]:
        index = 0
        for page in _pages(self._source.items(after_sequence=self._seen)):
            there = self._there(self._copy, (item.id for item in page))
            for item in page:
                if not self._is_done(item, there.get(item.id)):
                    yield self._entry(index, item)
                    index += 1

    def _is_done(self, item: Item, copy: Item | None) -> bool:
        return copy is not None and (_is_copy(item, copy) or copy.sequence > self._own)

    def _entry(self, index: int, item: Item) -> _entries.Entry[Any]:
        picture = self._pictures(item)
        if picture is None:
            entry = _failed(index, item.id, item, "no attribute 'path' tells its file", "FILE_UNKNOWN")
        else:
            entry = _entries.image_entry(index, picture, self._limits)
            if entry.payload is not None and not _is_picture_of(item, picture, entry.payload):
                reason = "it has changed since it was indexed: index it again"
                entry = _failed(index, entry.source, item, reason, "FILE_CHANGED")
        return _entries.item_entry(entry, item.id, item.attributes, "image")

    def _take(self, report: AddReport) -> None:
        """Counts, and takes from the copy what the source has in a newer version that could not be copied."""
        self.copied += report.added
        failed = self.missing | {failure.id: failure for failure in report.failed}
        now, there = self._there(self._source, failed), self._there(self._copy, failed)
        self.missing = {
            item.id: failed[item.id] for item in now.values() if not self._is_done(item, there.get(item.id))
        }
        self._delete(set(self.missing) & set(there))

    def _others(self) -> Iterator[str]:
        """The ids of items of the copy that the source does not have."""
        for page in _pages(self._copy.items()):
            there = self._there(self._source, (item.id for item in page))
            yield from (item.id for item in page if item.id not in there and item.sequence <= self._own)

    def _delete(self, ids: Iterable[str]) -> None:
        self.deleted += self._copy.delete(ids)

    @staticmethod
    def _there(collection: Collection, ids: Iterable[str]) -> dict[str, Item]:
        return {item.id: item for item in collection.get(ids, allow_missing=True)}


def _pages(items: Iterator[Item]) -> Iterator[list[Item]]:
    while page := list(islice(items, PAGE)):
        yield page


def _is_copy(item: Item, copy: Item) -> bool:
    """Whether the copy has the item as it is. One written as a descriptor has no digest to compare."""
    return copy.attributes == item.attributes and item.digest in (b"", copy.digest)


def _is_picture_of(item: Item, picture: ImageLike, wire: types_pb2.Image) -> bool:
    """Whether the item was made from this picture, as far as anything is known."""
    if item.digest:
        return hashlib.sha256(wire.data or wire.pixels.data).digest() == item.digest
    if not isinstance(picture, str | os.PathLike):
        return True
    known = [item.attributes.get(name) for name in ("bytes", "modified")]
    about = [len(wire.data), os.path.getmtime(picture)]
    return all(was == now or not isinstance(was, int | float) for was, now in zip(known, about, strict=True))


def _failed(index: int, source: str, item: Item, message: str, reason: str) -> _entries.Entry[Any]:
    return _entries.Entry(index, source, item.id, None, ImageUnusable(message, reason))
