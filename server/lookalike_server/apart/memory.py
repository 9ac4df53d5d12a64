"""Memory that two processes see, for the pixels of one batch."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lookalike_extractor.preprocessing import Pixels, Preprocessing


def memory_file() -> int:
    """Returns the descriptor of a file that is in no folder, and empty."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("lookalike-pixels")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class PixelMemory:
    """Room for a batch.

    Args:
        descriptor: of the file, which is made as large as is needed. It is not closed.
        models: those whose inputs it is for.
        images: most of a batch.
    """

    def __init__(self, descriptor: int, models: Sequence[Preprocessing], images: int) -> None:
        size = images * 3 * max(model.height * model.width for model in models)
        os.ftruncate(descriptor, size)
        self._bytes = np.frombuffer(mmap.mmap(descriptor, size), np.uint8)

    def images(self, count: int, model: Preprocessing) -> Pixels:
        """The place of so many images, uint8 [n, h, w, 3]. Raises ValueError when they do not fit."""
        shape = (count, model.height, model.width, 3)
        return self._bytes[: int(np.prod(shape))].reshape(shape)
