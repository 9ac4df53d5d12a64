"""Disk that is kept for deletions: what frees space must not fail for want of space."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

# A deletion rewrites a few pages for each item: enough for several hundred items at once.
RESERVE_BYTES = 32 << 20

_log = logging.getLogger(__name__)


class Reserve:
    """A file of zeros that is given up when the disk is full, and taken again when there is room.

    Args:
        path: of the file.
        size: in bytes; 0 keeps nothing.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        self._path = path
        self._size = RESERVE_BYTES if size is None else size
        self._lock = threading.Lock()
        self.spent = False
        """Given up: nothing but deletions should write."""
        self.fill()

    def fill(self) -> bool:
        """Takes the space where there is any; returns whether it is held."""
        with self._lock:
            try:
                self._allocate()
                self.spent = False
            except OSError:
                self._path.unlink(missing_ok=True)
        return not self.spent

    def spend(self) -> None:
        """Gives the space up."""
        if not self.spent:
            _log.warning("the disk of %s is full: only deletions are taken", self._path.parent)
        with self._lock:
            self.spent = True
            self._path.unlink(missing_ok=True)

    def _allocate(self) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if self._size:
                os.posix_fallocate(descriptor, 0, self._size)
        finally:
            os.close(descriptor)
