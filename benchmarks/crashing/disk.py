"""What may be on a disk after a crash: a record of file operations, played up to a moment."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_HEAD = struct.Struct("<cIIq")
_SECTOR = 512


@dataclass(frozen=True)
class Operation:
    """What a process did; recorder.c tells the letters."""

    what: str
    path: str
    place: int
    data: bytes


def operations(record: Path) -> Iterator[Operation]:
    data, at = record.read_bytes(), 0
    while at < len(data):
        what, n, size, place = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        yield Operation(what.decode(), data[at : at + n].decode(), place, data[at + n : at + n + size])
        at += n + size


@dataclass
class File:
    """A file's bytes now, those that were synced, and what was done since."""

    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    unsynced: list[Operation] = field(default_factory=list)


Names = dict[str, File | None]  # None is a folder


class Disk:
    """A disk on which nothing is safe that was not synced: neither bytes nor names."""

    def __init__(self) -> None:
        self.names: Names = {}
        self._safe: Names = {}
        self._unsafe: list[tuple[Operation, File | None]] = []

    def play(self, operation: Operation) -> None:
        file = self.names.get(operation.path)
        if operation.what == "s":
            self._sync(operation.path, file)
        elif operation.what in "wt" and file is not None:
            change(file.content, operation)
            file.unsynced.append(operation)
        elif operation.what in "crumd":
            made = File() if operation.what == "c" else None
            rename_or_remove(self.names, operation, made)
            self._unsafe.append((operation, made))

    def _sync(self, path: str, file: File | None) -> None:
        if file is not None:
            file.synced, file.unsynced = bytes(file.content), []
            return
        touched = [i for i, (done, _) in enumerate(self._unsafe) if _touches(done, path)]
        if touched:  # a journal writes names in their order
            self._write_names(self._safe, touched[-1] + 1)
            del self._unsafe[: touched[-1] + 1]

    def _write_names(self, names: Names, count: int) -> None:
        for operation, made in self._unsafe[:count]:
            rename_or_remove(names, operation, made)

    def killed(self, last: Operation, chance: random.Random) -> dict[str, bytes | None]:
        """After a kill: all that was done is there, of the last write perhaps only the beginning."""
        state = {name: None if file is None else bytes(file.content) for name, file in self.names.items()}
        file = self.names.get(last.path)
        if last.what == "w" and file is not None:
            content = bytearray(file.content)
            change(content, Operation("w", "", last.place, last.data[: chance.randrange(len(last.data) + 1)]))
            state[last.path] = bytes(content)
        return state

    def without_power(self, chance: random.Random) -> dict[str, bytes | None]:
        """After a power cut: of what was not synced any part may be there, sectors in any order."""
        names = dict(self._safe)
        self._write_names(names, chance.randint(0, len(self._unsafe)))
        return {name: None if file is None else _part(file, chance) for name, file in names.items()}


def _part(file: File, chance: random.Random) -> bytes:
    content = bytearray(file.synced)
    for operation in file.unsynced:
        kept = chance.random()
        if operation.what == "t" or kept < 0.4:
            if kept < 0.6:
                change(content, operation)
        elif kept < 0.8:
            for start in range(0, len(operation.data), _SECTOR):
                if chance.random() < 0.5:
                    sector = operation.data[start : start + _SECTOR]
                    change(content, Operation("w", "", operation.place + start, sector))
    return bytes(content)


def change(content: bytearray, operation: Operation) -> None:
    end = operation.place + len(operation.data)
    if operation.what == "t":
        del content[operation.place :]
    content.extend(bytes(max(0, end - len(content))))
    content[operation.place : end] = operation.data


def rename_or_remove(names: Names, operation: Operation, made: File | None) -> None:
    match operation.what:
        case "c" | "m":
            names[operation.path] = made
        case "u" | "d":
            names.pop(operation.path, None)
        case "r":
            for name in [n for n in names if n == operation.path or n.startswith(operation.path + "/")]:
                names[operation.data.decode() + name[len(operation.path) :]] = names.pop(name)


def _touches(operation: Operation, folder: str) -> bool:
    paths = [operation.path] + ([operation.data.decode()] if operation.what == "r" else [])
    return folder in [str(Path(path).parent) for path in paths]


def write_out(state: dict[str, bytes | None], root: Path) -> None:
    for name, content in sorted(state.items()):
        path = root / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        elif path.parent.is_dir():
            path.write_bytes(content)
