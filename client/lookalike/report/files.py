"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def written_whole(path: Path, *, errors: str = "strict") -> Iterator[TextIO]:
    """Opens a text file (UTF-8) that takes the place of `path` once everything is written and on disk.

    When the block raises, what was at `path` before is still there and nothing else is left behind.
    """
    with draft_of(path) as draft, draft.open("x", encoding="utf-8", errors=errors, newline="") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` for a file that takes its place when the block ends without an error."""
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        yield draft
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
