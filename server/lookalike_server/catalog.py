"""All collections of a data directory, which one process has open at a time.

<data>/.lock                 held while the directory is open; tells who holds it
<data>/.reserve              disk for deletions when there is no other
<data>/.aliases              names that stand for collections (aliases.py)
<data>/<name>/store.db       a collection
<data>/.new-<name>           one that was being made, <data>/.gone-<name> one that was being deleted:
                             a rename makes either happen whole, and what a kill left over is removed at
                             start
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike_extractor.errors import LookalikeError, did_you_mean
from lookalike_extractor.recipe import Space

from lookalike_server.aliases import Aliases
from lookalike_server.attributes import checked_paths
from lookalike_server.collection import Collection
from lookalike_server.directory import NAME, check_name, locked, usable
from lookalike_server.errors import (
    CollectionAliased,
    CollectionExists,
    CollectionUnknown,
    StoreDamaged,
)
from lookalike_server.reserve import Reserve
from lookalike_server.schema import sync_folder
from lookalike_server.store import Store
from lookalike_server.upkeep import restored

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
        with usable(root):
            root.mkdir(parents=True, exist_ok=True)
            self._lock = locked(root)
        try:
            self._reserve = Reserve(root / ".reserve")
            with usable(root):
                self.aliases = Aliases(root / ".aliases")
                self._recover()
        except BaseException:
            os.close(self._lock)
            raise
        self.workers = ThreadPoolExecutor(max(4, os.cpu_count() or 1), thread_name_prefix="collections")
        """Threads for callers that must not block themselves."""

    def create(self, name: str, space: Space, indexed: Sequence[str] = ()) -> Collection:
        """Makes an empty collection. Raises ArgumentInvalid for a bad name, CollectionExists.

        indexed: attributes that get an index, as `Collection.index_attributes` takes them.
        """
        check_name(name)
        indexed = checked_paths(indexed)
        with self._changing, usable(self.root):
            self._check_free(name)
            draft = self.root / (_NEW + name)
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            Store.create(draft / "store.db", name, space, indexed)
            return self._adopt(draft, name)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Gives a folder for work on files, on the same disk; what is left in it at the end is removed."""
        with usable(self.root):
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
            check_name(name)
            self._check_free(name)
        name = restored(draft / "store.db", name)
        check_name(name)
        with self._changing, usable(self.root):
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
        if name in self.aliases:
            raise CollectionExists(f"{name!r} is an alias already.", collection=name)

    def get(self, name: str) -> Collection:
        """Returns the collection of that name or alias.

        Raises CollectionUnknown, or what is wrong with the collection.
        """
        collection = self._open.get(name)
        if collection is not None:
            return collection
        if name in self._broken:
            raise self._broken[name]
        behind = self.aliases.behind(name)
        if behind is not None:
            return self.get(behind)
        self.aliases.check()
        near = did_you_mean(name, [*self._open, *self.aliases.all()])
        raise CollectionUnknown(f"There is no collection {name!r}.{near}", collection=name)

    def list(self) -> list[Collection]:
        """Returns the collections by name."""
        return [collection for _, collection in sorted(self._open.copy().items())]

    def delete(self, name: str) -> None:
        """Deletes the collection, for good. Raises CollectionUnknown, or CollectionAliased for one in use."""
        with self._changing, usable(self.root):
            self._check_not_aliased(name)
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

    def _check_not_aliased(self, name: str) -> None:
        if name in self.aliases:
            behind = self.aliases.behind(name)
            raise CollectionAliased(
                f"{name!r} is an alias of collection {behind!r}: name the one to delete.", collection=name
            )
        aliases = self.aliases.of(name)
        if aliases:
            raise CollectionAliased(
                f"Collection {name!r} is in use as {', '.join(map(repr, aliases))}. Let the alias stand for "
                "another, or delete it, first.",
                collection=name,
            )

    def set_alias(self, alias: str, name: str) -> Collection:
        """Makes an alias stand for a collection, in place of another; it is on disk when this returns.

        Raises ArgumentInvalid for a bad name, CollectionUnknown, CollectionExists where a collection has it.
        """
        check_name(alias)
        with self._changing, usable(self.root):
            if alias not in self.aliases:
                self._check_free(alias)
            collection = self.get(name)
            self.aliases.put(alias, collection.name)
        return collection

    def delete_alias(self, alias: str) -> None:
        """Removes an alias; its collection stays. Raises AliasUnknown."""
        with self._changing, usable(self.root):
            self.aliases.remove(alias)

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
            elif folder.is_dir() and NAME.fullmatch(folder.name):
                self._reopen(folder.name)

    def _reopen(self, name: str) -> None:
        try:
            self._open[name] = Collection(self._path(name), self._reserve)
        except LookalikeError as error:
            _log.error("collection %r is left out: %s", name, error)
            self._broken[name] = error
        except (TypeError, ValueError, LookupError, ArithmeticError) as error:  # not what was written
            path = self._path(name)
            _log.error("collection %r is left out: %s is damaged", name, path, exc_info=error)
            self._broken[name] = StoreDamaged(f"{path} is damaged; restore it from a backup.", path=str(path))


if TYPE_CHECKING:
    from lookalike_server.backend import IndexBackend

    _kept: type[IndexBackend] = Catalog
