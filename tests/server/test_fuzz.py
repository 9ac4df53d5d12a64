"""Broken images and messages harm nobody. `benchmarks/fuzz.py` is the long form."""

from __future__ import annotations

import asyncio
import importlib.util
import random
from pathlib import Path
from types import ModuleType

import pytest
from operated import operated

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_broken_images_get_a_status_and_leave_their_neighbours_alone(fuzz: ModuleType) -> None:
    ended = asyncio.run(fuzz.images(1000, random.Random(2)))
    assert ended.total() == 1000
    assert ended["IMAGE_TRUNCATED"] > 100
    assert ended["read all the same"] > 100


def test_broken_messages_end_in_time_and_never_as_our_fault(
    fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with operated(monkeypatch, tmp_path) as server, server.channel() as channel:
        codes = fuzz.messages(channel, 300, random.Random(2))
        assert codes["INVALID_ARGUMENT"] > 30
        assert codes["OK"] > 30
        assert (server.engine.room.images, server.engine.room.bytes) == (0, 0)
