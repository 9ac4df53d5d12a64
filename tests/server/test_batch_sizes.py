"""How large batches become, by what they cost and who else is about."""

from __future__ import annotations

import time
from typing import Any

import pytest
from lookalike_extractor.images import ImageLimits
from lookalike_server.cache import ResultCache
from lookalike_server.device import Device
from lookalike_server.served import Model
from lookalike_server.stages import Stages
from serving import TinyModel


class Nobody:
    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.fixture
def stages() -> Stages:
    return Stages(
        [Device([TinyModel()])],
        ResultCache(0),
        Nobody(),
        lambda *_: None,
        limits=ImageLimits(),
        max_batch=64,
        decode_threads=1,
    )


def costing(each: float, once: float, sizes: tuple[int, ...] = (2, 8, 16)) -> Model:
    model = Model([Device([TinyModel()])], 0)
    model.learn([(n, each * n + once) for n in sizes])
    return model


def test_bulk_waits_for_no_larger_batches_than_pay(stages: Stages) -> None:
    assert stages.efficient(costing(0.014, 0.031), bulk=True) == pytest.approx(43, abs=2)
    assert stages.efficient(costing(0.100, 0.0001), bulk=True) == 4


def test_while_interactive_callers_are_about_bulk_keeps_them_waiting_for_little(stages: Stages) -> None:
    stages.interactive_at = time.monotonic()
    slow, fast = costing(0.014, 0.031), costing(0.00007, 0.003)
    size = stages.efficient(slow, bulk=True)
    assert slow.cost.seconds(size) <= 1.25 * slow.cost.seconds(2)
    size = stages.efficient(fast, bulk=True)
    assert 1.25 * fast.cost.seconds(2) < fast.cost.seconds(size) <= 0.010  # nobody notices so little


def test_a_wrong_first_impression_of_what_batches_cost_is_unlearned(stages: Stages) -> None:
    model = costing(0.030, 0.0)  # as if a large batch had met with other work on the machine
    assert stages.efficient(model, bulk=False) == 2
    for _ in range(1500):
        n = min(64, stages.efficient(model, bulk=False))
        model.cost.learn(n, 0.014 * n + 0.031, weight=n / 2)
    assert model.cost.efficient(0.95) == pytest.approx(43, rel=0.3)
