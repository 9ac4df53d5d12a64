"""A data directory: held by one process, its troubles told in words."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike_server.errors import DataDirectoryBusy, DiskFull, StoreUnusable


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


def locked(root: Path) -> int:
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
