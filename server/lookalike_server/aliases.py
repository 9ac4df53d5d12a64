"""Names that stand for collections, in one small file that is replaced whole.

<data>/.aliases    {"aliases": {alias: collection}, "crc": of the aliases}
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from pathlib import Path

from lookalike_extractor.errors import did_you_mean

from lookalike_server.errors import AliasUnknown, StoreDamaged
from lookalike_server.schema import sync_folder

_log = logging.getLogger(__name__)


class Aliases:
    """Reads take no lock and see the aliases before or after a change; one thread at a time may change them.

    A damaged file does not keep collections from being used: it is told to whoever names what is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: dict[str, str] = {}
        self._damage: StoreDamaged | None = None
        try:
            self._names = _read(path)
        except StoreDamaged as error:
            _log.error("%s", error)
            self._damage = error

    def __contains__(self, alias: object) -> bool:
        return alias in self._names

    def behind(self, alias: str) -> str | None:
        """Returns the collection's name; None for what is no alias that is known."""
        return self._names.get(alias)

    def check(self) -> None:
        """Raises StoreDamaged where it is not known what aliases there are."""
        if self._damage is not None:
            raise self._damage

    def of(self, collection: str) -> list[str]:
        """Returns the aliases that stand for a collection, by name."""
        return sorted(alias for alias, name in self._names.items() if name == collection)

    def all(self) -> list[str]:
        return [*self._names]

    def put(self, alias: str, collection: str) -> None:
        """Makes the alias stand for that collection. It is on disk when this returns."""
        self._replace(self._names | {alias: collection})

    def remove(self, alias: str) -> None:
        """Raises AliasUnknown, or StoreDamaged where it cannot be known."""
        if alias not in self._names:
            self.check()
            near = did_you_mean(alias, self._names)
            raise AliasUnknown(f"There is no alias {alias!r}.{near}", alias=alias)
        self._replace({name: collection for name, collection in self._names.items() if name != alias})

    def _replace(self, names: dict[str, str]) -> None:
        draft = self._path.with_name(self._path.name + "-new")
        with draft.open("w") as file:
            json.dump({"aliases": names, "crc": _crc(names)}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self._path)
        sync_folder(self._path.parent)
        self._names, self._damage = names, None


def _read(path: Path) -> dict[str, str]:
    try:
        kept = json.loads(path.read_bytes())
        names: dict[str, str] = kept["aliases"]
        if kept["crc"] == _crc(names):
            return names
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        pass
    raise StoreDamaged(
        f"{path} is damaged: what aliases there were is not known. Set them again; the first one makes the "
        "file anew.",
        path=str(path),
    )


def _crc(names: dict[str, str]) -> int:
    return zlib.crc32(json.dumps(names, sort_keys=True).encode())
