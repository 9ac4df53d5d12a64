"""What all tests share: an archive of real photos with planted copies, and one real server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from photos import Archive, plant_archive

if TYPE_CHECKING:
    from lookalike import Client

# A trial of runtimes at each start of a server would take most of the suite's time.
os.environ.setdefault("LOOKALIKE_RUNTIME", "eager")


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Real photos, copies of four of them, and files that are no pictures. Read only."""
    return plant_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a real server with real weights. Tests name their own collections."""
    from lookalike import Client

    data: Path = tmp_path_factory.mktemp("data")
    with Client.embedded(data) as connected:
        yield connected
