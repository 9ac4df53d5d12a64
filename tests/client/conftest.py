"""A server made by hand and a client of it, for tests without torch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_server import FakeServer
from lookalike import Client


@pytest.fixture
def server() -> Iterator[FakeServer]:
    running = FakeServer()
    yield running
    running.stop()


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    with Client(server.target) as connected:
        yield connected
