"""A data directory: held by one process, its troubles told in words, what its folders may be named."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike_server.errors import ArgumentInvalid, DataDirectoryBusy, DiskFull, StoreUnusable

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""Of a collection, and of an alias."""


@contextmanager
def usable(root: Path) -> Iterator[None]:
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


def check(root: Path) -> None:
    """Raises what will keep a server from the directory, as far as can be told without holding it.

    To open it comes after seconds of imports. It is made when it is not there. Raises DataDirectoryBusy,
    DiskFull, StoreUnusable.
    """
    with usable(root):
        root.mkdir(parents=True, exist_ok=True)
        os.close(_lock(root, fcntl.LOCK_SH))  # for a moment, and beside others who only look
        tempfile.TemporaryFile(dir=root).close()


def locked(root: Path) -> int:
    """Returns a file descriptor that holds the directory's lock until it is closed, or the process ends."""
    descriptor = _lock(root, fcntl.LOCK_EX)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _lock(root: Path, kind: int) -> int:
    descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise DataDirectoryBusy(
            f"The data directory {root} is in use by process {holder}. Stop that one, send requests to it, "
            "or choose another directory.",
            path=str(root),
            pid=holder,
        ) from None
    return descriptor


def check_name(name: str) -> None:
    """Raises ArgumentInvalid for what cannot name a collection."""
    if not NAME.fullmatch(name):
        raise ArgumentInvalid(
            f"{name!r} cannot name a collection: use 1 to 63 small letters, digits, '-' and '_', "
            "beginning with a letter or digit.",
            field="name",
        )
