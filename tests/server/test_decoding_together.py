"""How many images the decoders take at once, and when they are woken."""

from __future__ import annotations

import math
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lookalike_extractor.images import ImageLimits
from lookalike_server import decoding
from lookalike_server.batcher import Line
from lookalike_server.cache import ResultCache
from lookalike_server.decoding import Decoding
from lookalike_server.jobs import Call, Job
from serving import TINY


class _Model(SimpleNamespace):
    __hash__ = object.__hash__


MODEL: Any = _Model(preprocessing=TINY, number=0)


def jobs(count: int) -> list[Job]:
    call = Call(done=None, pending=count, bulk=False, deadline=math.inf)  # type: ignore[arg-type]
    return [Job(call, b"file", MODEL, size=1) for _ in range(count)]


def groups(seconds: float, count: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many were handed on together each time, of images that take so long to decode."""

    def decode(*_: Any, **__: Any) -> Any:
        time.sleep(seconds)
        return np.zeros((16, 16, 3), np.uint8)

    monkeypatch.setattr(decoding, "decode", decode)
    handed: list[int] = []
    room = Decoding(
        ResultCache(0),
        ImageLimits(),
        1,
        ready=lambda ready: handed.append(len(ready)),
        ended=lambda ended: None,
        failed=lambda stage, error: None,
    )
    room.line.put(jobs(count))
    room.start()
    room.join(None)
    assert sum(handed) == count
    return handed


def test_small_images_are_handed_on_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(groups(0.0, 32, monkeypatch)) < 16


def test_large_images_are_handed_on_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    assert groups(0.025, 4, monkeypatch) == [1, 1, 1, 1]


def test_what_decoders_have_in_hand_is_counted() -> None:
    room = Decoding(
        ResultCache(0), ImageLimits(), 1, ready=print, ended=print, failed=lambda stage, error: None
    )
    room._decoders[0].hand = jobs(3)
    assert room.by_model(bulk=False) == {MODEL: 3}
    assert room.by_model(bulk=True) == {}


def test_who_waits_is_woken_once_for_all_that_was_put() -> None:
    line, taken = Line(), []
    taker = threading.Thread(target=lambda: taken.append(len(line.take_share(8, takers=1) or [])))
    taker.start()
    time.sleep(0.05)  # it waits by now
    for job in jobs(5):
        line.put([job], wake=False)
    time.sleep(0.02)
    assert taken == []
    line.wake(5)
    taker.join(60)
    assert taken == [5]
