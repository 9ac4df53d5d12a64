"""Where a search keeps its tables: in memory, or in a folder of Parquet files from which it can go on.

    manifest.json        what was asked, and for each shard its SHA-256 and facts
    STAGE-00000.parquet  one shard: it is there whole before the manifest names it

A shard depends on what was asked and on shards of earlier stages alone, and the same table gives the same
bytes. So whoever finds a folder makes what is not there yet, and ends with the files that one go would have
given.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from lookalike_server.schema import sync_folder

MANIFEST = "manifest.json"
_VERSION = 1


@dataclass(frozen=True)
class Shard:
    """A piece of a stage's result, with what is to be known about it without reading it."""

    table: pa.Table
    facts: Mapping[str, int] = field(default_factory=dict)


class Shards(Protocol):
    """Keeps shards by stage and number."""

    def get(self, stage: str, number: int) -> Shard | None:
        """The shard as it was put; None when it was not, or is damaged."""

    def put(self, stage: str, number: int, shard: Shard) -> None: ...

    def clear(self) -> None:
        """Forgets everything."""


class InMemory(Shards):
    def __init__(self) -> None:
        self._shards: dict[tuple[str, int], Shard] = {}

    def get(self, stage: str, number: int) -> Shard | None:
        return self._shards.get((stage, number))

    def put(self, stage: str, number: int, shard: Shard) -> None:
        self._shards[stage, number] = shard

    def clear(self) -> None:
        self._shards.clear()

    def all(self, stage: str) -> list[Shard]:
        """The shards of a stage by number."""
        numbers = sorted(number for name, number in self._shards if name == stage)
        return [self._shards[stage, number] for number in numbers]


class Folder(Shards):
    """Shards as files. One process at a time may use a folder.

    Args:
        path: of the folder, which is there.
        asked: what the shards are made for; a folder with shards for anything else is cleared.

    Raises OSError when the disk is full or the folder gone.
    """

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        self._path = path
        self._asked = json.loads(json.dumps(asked))
        self._known = _read(path / MANIFEST, self._asked)
        self._checked: set[str] = set()
        if not self._known:
            self.clear()

    def get(self, stage: str, number: int) -> Shard | None:
        name = _name(stage, number)
        known = self._known.get(name)
        if known is None or not self._intact(name, known["sha256"]):
            return None
        table = pq.read_table(self._path / name, memory_map=False, use_threads=False)
        return Shard(table, known["facts"])

    def put(self, stage: str, number: int, shard: Shard) -> None:
        name, stream = _name(stage, number), pa.BufferOutputStream()
        # Vectors do not get smaller, and what is left is small beside them.
        pq.write_table(shard.table, stream, compression="none", use_dictionary=False, write_statistics=False)
        content = stream.getvalue()
        write_whole(self._path / name, content)
        digest = hashlib.sha256(content).hexdigest()
        self._known[name] = {"sha256": digest, "rows": shard.table.num_rows, "facts": dict(shard.facts)}
        self._checked.add(name)
        self._write_manifest()

    def clear(self) -> None:
        self._known = {}
        for file in self._path.glob("*.parquet*"):
            file.unlink()

    def count(self, stage: str) -> int:
        """How many shards of a stage there are."""
        return sum(name.rpartition("-")[0] == stage for name in self._known)

    def facts(self, stage: str, number: int) -> Mapping[str, int]:
        facts: Mapping[str, int] = self._known[_name(stage, number)]["facts"]
        return facts

    def keep_only(self, stage: str) -> None:
        """Deletes the files of every other stage; the manifest still tells what they were."""
        for file in self._path.glob("*.parquet*"):
            if file.name.rpartition("-")[0] != stage:
                file.unlink()

    def _intact(self, name: str, sha256: str) -> bool:
        if name in self._checked:
            return True
        try:
            with (self._path / name).open("rb") as file:
                intact = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except FileNotFoundError:
            return False
        if intact:
            self._checked.add(name)
        return intact

    def _write_manifest(self) -> None:
        manifest = {"version": _VERSION, "asked": self._asked, "shards": dict(sorted(self._known.items()))}
        write_whole(self._path / MANIFEST, json.dumps(manifest, indent=1).encode())


def write_whole(path: Path, content: Any) -> None:
    """Writes a file that appears whole or not at all, and is on disk when this returns."""
    draft = path.with_name(path.name + ".tmp")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync_folder(path.parent)


def _read(manifest: Path, asked: object) -> dict[str, Any]:
    """The shards of a manifest that was written for the same question; none when it cannot be read."""
    try:
        known = json.loads(manifest.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    same = isinstance(known, dict) and (known.get("version"), known.get("asked")) == (_VERSION, asked)
    shards: dict[str, Any] = known["shards"] if same else {}
    return shards


def _name(stage: str, number: int) -> str:
    return f"{stage}-{number:05}.parquet"
