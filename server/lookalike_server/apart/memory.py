"""Memory that two processes see, for the pixels of one batch."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence

import numpy as np
from lookalike_extractor.preprocessing import Preprocessing
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def memory_file() -> int:
    """Returns the descriptor of a file that is in no folder, and empty."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("lookalike-pixels")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def size_of(models: Sequence[Preprocessing], images: int) -> int:
    """Bytes of so many images of the largest of the models' inputs."""
    return images * 3 * max(model.height * model.width for model in models)


class PixelMemory:
    """Room for a batch.

    Args:
        descriptor: of the file, which is made as large as is needed. It is not closed.
        size: in bytes.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)
        self._bytes = np.frombuffer(mmap.mmap(descriptor, size), np.uint8)

    def images(self, count: int, model: Preprocessing) -> Pixels:
        """The place of so many images, uint8 [n, h, w, 3]. Raises ValueError when they do not fit."""
        shape = (count, model.height, model.width, 3)
        return self._bytes[: int(np.prod(shape))].reshape(shape)
