"""Files that are read again once they have changed: certificates and tokens."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from lookalike_extractor.errors import LookalikeError

Value = TypeVar("Value")

_log = logging.getLogger(__name__)


class Watched(Generic[Value]):
    """What is made of some files, kept up to date. Any thread may ask.

    A change that cannot be used is logged once and changes nothing: the last good value stays in force.

    Args:
        paths: the files.
        load: reads them; raises a LookalikeError when they are wrong, here and in `reload`.
    """

    def __init__(self, paths: Sequence[Path], load: Callable[[], Value]) -> None:
        self._paths = paths
        self._load = load
        self._changing = threading.Lock()
        self._seen = self._stamps()
        self._value = load()

    def get(self) -> Value:
        """The value of the files as they are now; asking costs a look at their times."""
        if self._stamps() != self._seen:
            try:
                self.reload()
            except LookalikeError as error:
                _log.error("%s The files as they were before stay in force.", error)
        return self._value

    def reload(self) -> None:
        """Reads the files. Raises what is wrong with them."""
        with self._changing:
            self._seen = self._stamps()
            self._value = self._load()

    def _stamps(self) -> list[tuple[int, int, int]]:
        return [stamp(path) for path in self._paths]


def stamp(path: Path) -> tuple[int, int, int]:
    """Changes whenever the file does; zeros where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_size, status.st_ino)
