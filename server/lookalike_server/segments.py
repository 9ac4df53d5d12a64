"""Parts of a view on disk, so that opening a collection reads files instead of rebuilding from rows.

    <data>/<collection>/segments/<first>-<last>-<count>     keys int64 [n], then vectors float32 [n, d],
    little-endian

A segment is a copy: the store has every row as well. A file is written whole under another name, synced and
renamed before the store's row points to it; the store's row carries its checksum. A file that is missing or
not what was written is passed over and its rows are read from the store: slower, never wrong.

The keeper is the thread that makes segments: of each part that is full, and of neighbours that fit in one
because rows of theirs were deleted.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lookalike_server import view as views
from lookalike_server.caretaker import Caretaker
from lookalike_server.parts import Keys, Part, Vectors
from lookalike_server.reader import Reader
from lookalike_server.schema import Segment, sync_folder
from lookalike_server.view import View

_log = logging.getLogger(__name__)


def file_of(folder: Path, segment: Segment) -> Path:
    return folder / f"{segment.first}-{segment.last}-{segment.count}"


def write_segment(folder: Path, run: Sequence[Part]) -> tuple[Segment, Part]:
    """Puts the living rows of neighbouring parts on disk as one file, and returns it as a part."""
    keys = np.concatenate([part.keys[: part.count][part.alive] for part in run])
    vectors = np.concatenate([part.vectors[: part.count][part.alive] for part in run])
    segment = Segment(int(keys[0]), int(keys[-1]), len(keys), checksum(keys, vectors))
    folder.mkdir(exist_ok=True)
    draft = folder / "draft"
    with draft.open("wb") as file:
        file.write(keys.astype("<i8", copy=False).data)
        file.write(vectors.astype("<f4", copy=False).data)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(file_of(folder, segment))
    sync_folder(folder)
    return segment, _mapped(folder, segment, vectors.shape[1])


def checksum(keys: Keys, vectors: Vectors) -> int:
    """Returns a number that any flipped bit and any row out of place changes, at the speed of memory."""
    words = np.uint64 if vectors.shape[1] % 2 == 0 else np.uint32
    sums = vectors.view(words).sum(axis=1, dtype=np.uint64)
    return zlib.crc32(sums.data, zlib.crc32(np.ascontiguousarray(keys).data))


def _mapped(folder: Path, segment: Segment, dimension: int) -> Part:
    path, n = file_of(folder, segment), segment.count
    keys = np.asarray(np.memmap(path, "<i8", "r", shape=(n,)))
    vectors = np.asarray(np.memmap(path, "<f4", "r", offset=8 * n, shape=(n, dimension)))
    return Part(keys, vectors, n, np.ones(n, np.bool_), sealed=True)


def is_whole(folder: Path, segment: Segment, dimension: int) -> bool:
    """Whether the segment's file is what was written."""
    return _whole(folder, segment, dimension) is not None


def _whole(folder: Path, segment: Segment, dimension: int) -> Part | None:
    try:
        size = file_of(folder, segment).stat().st_size
        if size == segment.count * (8 + 4 * dimension):
            part = _mapped(folder, segment, dimension)
            if checksum(part.keys, part.vectors) == segment.crc:
                return part
    except OSError:
        pass
    return None


def _loaded(folder: Path, segment: Segment, dimension: int) -> Part | None:
    """Returns the segment's part, or None when its file is not what was written."""
    part = _whole(folder, segment, dimension)
    if part is not None:
        return part
    _log.warning("%s is damaged or missing; its items are read from the store", file_of(folder, segment))
    return None


def open_view(folder: Path, reader: Reader, dimension: int) -> View:
    """Returns the view of all rows of the store, from segments where they are good."""
    segments, gone = reader.segments(), reader.gone()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        loaded = list(pool.map(lambda segment: _loaded(folder, segment, dimension), segments))
    parts: list[Part] = []
    for segment, part in zip(segments, loaded, strict=True):
        if part is None:
            parts += View.built(dimension, 0, reader.blocks(segment.first, segment.last)).parts
        else:
            parts.append(part.without(gone))
    rest = View.built(dimension, 0, reader.blocks(segments[-1].last + 1 if segments else 0))
    remove_strangers(folder, segments)
    view = View(dimension, reader.sequence, [*parts, *rest.parts])
    return view if view.tally() == reader.tally() else _from_rows(reader, dimension)


def _from_rows(reader: Reader, dimension: int) -> View:
    """Returns the view from the rows alone, where the store's list of segments is not what was written."""
    _log.warning("the segments do not hold the items of the store; all are read from it")
    view = View(dimension, reader.sequence, View.built(dimension, 0, reader.blocks()).parts)
    if view.tally() != reader.tally():
        raise reader.damaged("its items and descriptors, which do not belong together")
    return view


def remove_strangers(folder: Path, segments: Sequence[Segment]) -> None:
    """Removes files that no segment of the store points to."""
    known = {file_of(folder, segment) for segment in segments}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path not in known:
            path.unlink(missing_ok=True)


def next_run(view: View) -> tuple[Part, ...]:
    """Returns neighbouring parts that should become one segment; () when all is well.

    The last part is left alone: it is being extended.
    """
    parts = view.parts[:-1]
    for i, part in enumerate(parts):
        if i + 1 < len(parts) and part.living + parts[i + 1].living <= views.PART_ROWS:
            return parts[i : i + 2]
        if not part.sealed or not part.living:
            return (part,)
    return ()


@dataclass(frozen=True)
class Rewrite:
    """Neighbouring parts and the segment that takes their place; None when no row of theirs lives."""

    run: tuple[Part, ...]
    segment: Segment | None
    part: Part | None

    @property
    def bounds(self) -> tuple[int, int]:
        """The first and the last key of the run."""
        return int(self.run[0].keys[0]), int(self.run[-1].keys[self.run[-1].count - 1])


class Keeper:
    """The thread that makes segments.

    Args:
        folder: of the segments.
        view: gives the view of the moment.
        publish: puts a rewrite into the store and the view, and returns the segments of the store after it.
    """

    def __init__(
        self, folder: Path, view: Callable[[], View], publish: Callable[[Rewrite], Sequence[Segment]]
    ) -> None:
        self._folder = folder
        self._view = view
        self._publish = publish
        # When it fails nothing is lost: the parts stay in memory and the rows in the store.
        trouble = f"a segment could not be written in {folder}"
        self._thread = Caretaker(f"keep-{folder.parent.name}", self._tidy, trouble)
        self.wake, self.close = self._thread.wake, self._thread.close

    def _tidy(self) -> None:
        while not self._thread.stopping() and (run := next_run(self._view())):
            living = any(part.living for part in run)
            segment, part = write_segment(self._folder, run) if living else (None, None)
            remove_strangers(self._folder, self._publish(Rewrite(run, segment, part)))
