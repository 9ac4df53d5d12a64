"""The truth of a collection: one SQLite file.

    collection   one row: name, space, sequence
    item         k, id, attributes, digest, crc; with indexes on attributes (attributes.py)
    vector       k, data, crc
    segment      files that hold copies of the vectors of a range of keys (segments.py)
    gone         keys of rows that were deleted since their segment was written
    document     name, value, crc: what other rooms keep of a collection, as JSON (format 2)

`k` is both the key of a row and its version: a write of an id deletes the old row and inserts a new one with
the next number, which is never used again. Vectors have a table of their own so that a filter reads
attributes only. Each row carries a checksum, because SQLite notices a torn page but not a flipped bit.

A commit is on disk when it returns (write-ahead log, synchronous=FULL). One thread writes; any number read,
each within a transaction that sees one state.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lookalike_extractor.errors import LookalikeError

from lookalike_server.errors import DiskFull, StoreDamaged, StoreUnusable

SCHEMA = 2
APPLICATION = 0x4C4F4F4B  # "LOOK": tells our files from other SQLite files
TALLY_MODULUS = 1_000_003
# Pages this large hold several vectors: with SQLite's own 4 KiB a file is twice its data.
PAGE_BYTES = 32_768

_DOCUMENT = "CREATE TABLE document(name TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL);"
TABLES = f"""
CREATE TABLE collection(
    name TEXT NOT NULL, created REAL NOT NULL, sequence INTEGER NOT NULL,
    space TEXT NOT NULL, dimension INTEGER NOT NULL, recipe TEXT NOT NULL, metric TEXT NOT NULL);
CREATE TABLE item(
    k INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, attributes TEXT NOT NULL, digest BLOB NOT NULL,
    crc INTEGER NOT NULL);
CREATE TABLE vector(k INTEGER PRIMARY KEY, data BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE segment(
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, count INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE gone(k INTEGER PRIMARY KEY);
{_DOCUMENT}
"""
UPGRADES = {1: _DOCUMENT}
"""What turns a file of each older format into one of the next."""


@dataclass(frozen=True)
class Segment:
    """A file with the vectors of `count` of the keys from `first` to `last`. Segments do not overlap."""

    first: int
    last: int
    count: int
    crc: int


# How errors begin that have another code, or none, and yet mean that the file is not what was written: its
# values, or the statements that made its tables and indexes.
_DAMAGED = ("malformed JSON", "Could not decode", "no such ", "unknown function", "JSON path error")


@contextmanager
def faults(path: Path) -> Iterator[None]:
    """Turns errors of SQLite into those that a caller can be told; what is our fault stays as it is."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if str(error).startswith(_DAMAGED):
            code = sqlite3.SQLITE_CORRUPT
        fault = None if code is None else _FAULTS.get(code) or _FAULTS.get(code & 0xFF)
        if fault is None:
            raise
        cls, message = fault
        raise cls(f"{path} {message}", path=str(path)) from error


_FAULTS: Mapping[int, tuple[type[LookalikeError], str]] = {
    sqlite3.SQLITE_FULL: (DiskFull, "cannot grow: the disk is full. Free some space; reading goes on."),
    sqlite3.SQLITE_IOERR_SHMSIZE: (DiskFull, "cannot grow: the disk is full. Free some space."),
    sqlite3.SQLITE_CORRUPT: (StoreDamaged, "is damaged; restore it from a backup."),
    sqlite3.SQLITE_NOTADB: (StoreDamaged, "is damaged: not a database; restore it from a backup."),
    sqlite3.SQLITE_READONLY: (
        StoreUnusable,
        "cannot be written; check the rights of the file and its folder.",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnusable,
        "cannot be opened; check the rights of the file and its folder.",
    ),
    sqlite3.SQLITE_PERM: (StoreUnusable, "cannot be opened; check the rights of the file and its folder."),
}


def sync_folder(folder: Path) -> None:
    """Puts the folder's entries on disk: a new or renamed file is not safe before."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Checksums of what was read. A bit flipped in a row's header makes another type of a value, or NULL of it: no
# checksum fits that.
_NONE = -1


def item_crc(k: int, item_id: object, attributes: object, digest: object) -> int:
    if not (isinstance(item_id, str) and isinstance(attributes, str) and isinstance(digest, bytes)):
        return _NONE
    # Lengths are part of it, so that no two rows join to the same bytes.
    a, b = item_id.encode(), attributes.encode()
    return zlib.crc32(b"".join((struct.pack("<qII", k, len(a), len(b)), a, b, digest)))


def vector_crc(k: int, data: object) -> int:
    if not isinstance(data, bytes):
        return _NONE
    return zlib.crc32(data, zlib.crc32(struct.pack("<q", k)))


def document_crc(name: str, value: object) -> int:
    if not isinstance(value, str):
        return _NONE
    return zlib.crc32(f"{name}\0{value}".encode())
