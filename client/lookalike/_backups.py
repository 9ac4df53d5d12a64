"""Backups of collections as files: what the blocking and the asynchronous client share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from lookalike.errors import InternalError, InvalidArgument
from lookalike.v1 import collections_pb2

_PIECE_BYTES = 512 << 10


class BackupFile:
    """A file that is being received. It is there, whole and on disk, or not at all.

    Raises FileExistsError when there is one already.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        if self._path.exists():
            raise FileExistsError(17, "is there already; choose another name", str(path))
        self._part = self._path.with_name(self._path.name + ".part")
        self._file = self._part.open("wb")
        self._digest = hashlib.sha256()
        self.sequence = -1

    def take(self, piece: collections_pb2.BackupCollectionResponse) -> None:
        self._file.write(piece.data)
        self._digest.update(piece.data)
        if piece.digest:
            if piece.digest != self._digest.digest():
                raise InternalError("the backup arrived damaged; try again", "BACKUP_DAMAGED")
            self.sequence = piece.sequence

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())
            if kind is None and self.sequence < 0:
                raise InternalError("the backup ended too early; try again", "BACKUP_DAMAGED")
            if error is None:
                self._part.rename(self._path)
        finally:
            self._part.unlink(missing_ok=True)


def pieces(path: str | os.PathLike[str], name: str) -> Iterator[collections_pb2.RestoreCollectionRequest]:
    """A backup's file as messages. Raises InvalidArgument for an empty one, and OSError."""
    if not os.stat(path).st_size:
        raise InvalidArgument(f"{path} is empty", "BACKUP_EMPTY")
    return _cut(Path(path).open("rb"), name)


def _cut(file: BinaryIO, name: str) -> Iterator[collections_pb2.RestoreCollectionRequest]:
    with file:
        while data := file.read(_PIECE_BYTES):
            yield collections_pb2.RestoreCollectionRequest(name=name, data=data)
