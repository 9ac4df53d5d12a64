"""All collections of a data directory, which one process has open at a time.

<data>/.lock                 held while the directory is open; tells who holds it
<data>/.reserve              disk for deletions when there is no other
<data>/<name>/store.db       a collection
<data>/.new-<name>           one that was being made, <data>/.gone-<name> one that was being deleted:
                             a rename makes either happen whole, and what a kill left over is removed at
                             start
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike_extractor.errors import LookalikeError, did_you_mean
from lookalike_extractor.recipe import Space

from lookalike_server.collection import Collection
from lookalike_server.errors import (
    ArgumentInvalid,
    CollectionExists,
    CollectionUnknown,
    DataDirectoryBusy,
    DiskFull,
    StoreUnusable,
)
from lookalike_server.reserve import Reserve
from lookalike_server.schema import sync_folder
from lookalike_server.store import Store
from lookalike_server.upkeep import restored

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_NEW, _GONE = ".new-", ".gone-"

_log = logging.getLogger(__name__)


class Catalog:
    """The collections of a data directory. Any thread may call it; calls block.

    A collection that cannot be opened does not keep the others from it: `get` says what is wrong with it,
    `list` leaves it out, `delete` removes it.

    Args:
        root: the data directory; made when it is not there.

    Raises DataDirectoryBusy when another process has it open, StoreUnusable when it cannot be used.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._changing = threading.Lock()
        self._open: dict[str, Collection] = {}
        self._broken: dict[str, LookalikeError] = {}
        with _usable(root):
            root.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(root)
        try:
            self._reserve = Reserve(root / ".reserve")
            with _usable(root):
                self._recover()
        except BaseException:
            os.close(self._lock)
            raise
        self.workers = ThreadPoolExecutor(max(4, os.cpu_count() or 1), thread_name_prefix="collections")
        """Threads for callers that must not block themselves."""

    def create(self, name: str, space: Space) -> Collection:
        """Makes an empty collection. Raises ArgumentInvalid for a bad name, CollectionExists."""
        _check_name(name)
        with self._changing, _usable(self.root):
            self._check_free(name)
            draft = self.root / (_NEW + name)
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            Store.create(draft / "store.db", name, space)
            return self._adopt(draft, name)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Gives a folder for work on files, on the same disk; what is left in it at the end is removed."""
        with _usable(self.root):
            folder = Path(tempfile.mkdtemp(prefix=_NEW, dir=self.root))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def restore(self, draft: Path, name: str = "") -> Collection:
        """Makes a collection of a scratch folder with a backup as "store.db", under that name or its own.

        Raises ArgumentInvalid, CollectionExists, StoreDamaged, StoreTooNew.
        """
        if name:
            _check_name(name)
            self._check_free(name)
        name = restored(draft / "store.db", name)
        _check_name(name)
        with self._changing, _usable(self.root):
            self._check_free(name)
            return self._adopt(draft, name)

    def _adopt(self, draft: Path, name: str) -> Collection:
        """Makes the collection of a finished folder happen."""
        sync_folder(draft)
        draft.rename(self.root / name)
        sync_folder(self.root)
        self._open[name] = collection = Collection(self._path(name), self._reserve)
        return collection

    def _check_free(self, name: str) -> None:
        if name in self._open or name in self._broken:
            raise CollectionExists(f"There is a collection {name!r} already.", collection=name)

    def get(self, name: str) -> Collection:
        """Returns the collection. Raises CollectionUnknown, or what is wrong with the collection."""
        collection = self._open.get(name)
        if collection is not None:
            return collection
        if name in self._broken:
            raise self._broken[name]
        near = did_you_mean(name, self._open)
        raise CollectionUnknown(f"There is no collection {name!r}.{near}", collection=name)

    def list(self) -> list[Collection]:
        """Returns the collections by name."""
        return [collection for _, collection in sorted(self._open.copy().items())]

    def delete(self, name: str) -> None:
        """Deletes the collection, for good. Raises CollectionUnknown."""
        with self._changing, _usable(self.root):
            if name not in self._broken:
                gone = CollectionUnknown(f"Collection {name!r} was deleted.", collection=name)
                self.get(name).close(gone)
            trash = self.root / (_GONE + name)
            shutil.rmtree(trash, ignore_errors=True)
            self._path(name).parent.rename(trash)
            sync_folder(self.root)
            self._open.pop(name, None)
            self._broken.pop(name, None)
            shutil.rmtree(trash, ignore_errors=True)

    def close(self) -> None:
        """Ends what is under way and lets another process open the directory."""
        self.workers.shutdown()
        with self._changing:
            for collection in self._open.values():
                collection.close()
            self._open.clear()
            os.close(self._lock)

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _path(self, name: str) -> Path:
        return self.root / name / "store.db"

    def _recover(self) -> None:
        for folder in sorted(self.root.iterdir()):
            if folder.name.startswith((_NEW, _GONE)):
                shutil.rmtree(folder, ignore_errors=True)
            elif folder.is_dir() and _NAME.fullmatch(folder.name):
                self._reopen(folder.name)

    def _reopen(self, name: str) -> None:
        try:
            self._open[name] = Collection(self._path(name), self._reserve)
        except LookalikeError as error:
            _log.error("collection %r is left out: %s", name, error)
            self._broken[name] = error


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ArgumentInvalid(
            f"{name!r} cannot name a collection: use 1 to 63 small letters, digits, '-' and '_', "
            "beginning with a letter or digit.",
            field="name",
        )


@contextmanager
def _usable(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"The disk of {root} is full. Free some space.", path=str(root)) from error
        raise StoreUnusable(
            f"The data directory {root} cannot be used: {error.strerror or error}. "
            "Check its rights or choose another.",
            path=str(root),
        ) from error


def _locked(root: Path) -> int:
    """Returns a file descriptor that holds the directory's lock until it is closed, or the process ends."""
    descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise DataDirectoryBusy(
            f"The data directory {root} is in use by process {holder}. Stop that one, send requests to it, "
            "or choose another directory.",
            path=str(root),
            pid=holder,
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


if TYPE_CHECKING:
    from lookalike_server.backend import IndexBackend

    _kept: type[IndexBackend] = Catalog
