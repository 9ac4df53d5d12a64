"""How large batches become, by what they cost and who else is about."""

from __future__ import annotations

import time
from typing import Any

import pytest
from lookalike_extractor.images import ImageLimits
from lookalike_server.batcher import Line
from lookalike_server.cache import ResultCache
from lookalike_server.device import Device
from lookalike_server.jobs import Call, Job
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


def costing(each: float, once: float, *, pads_one: bool = True) -> Model:
    tiny = TinyModel()
    tiny.pads_one = pads_one
    model = Model([Device([tiny])], 0)
    model.learn([(n, each * n + once) for n in (2, 8, 16)])
    return model


def test_bulk_waits_for_no_larger_batches_than_pay(stages: Stages) -> None:
    assert stages.efficient(costing(0.014, 0.031), bulk=True) == pytest.approx(43, abs=2)
    assert stages.efficient(costing(0.100, 0.0001), bulk=True) == 8


def test_while_interactive_callers_are_about_bulk_keeps_them_waiting_for_little(stages: Stages) -> None:
    stages.interactive_at = time.monotonic()
    slow, fast = costing(0.014, 0.031), costing(0.00007, 0.003)
    size = stages.efficient(slow, bulk=True)
    assert slow.cost.seconds(size) <= 1.25 * slow.cost.seconds(2)
    size = stages.efficient(fast, bulk=True)
    assert 1.25 * fast.cost.seconds(2) < fast.cost.seconds(size) <= 0.010  # nobody notices so little


def test_beside_them_bulk_is_computed_image_by_image_where_one_takes_less_than_two(stages: Stages) -> None:
    stages.interactive_at = time.monotonic()
    assert stages.efficient(costing(0.014, 0.001, pads_one=False), bulk=True) == 1
    assert stages.efficient(costing(0.014, 0.001, pads_one=True), bulk=True) == 2
    stages.interactive_at -= 2  # nobody came since
    assert stages.efficient(costing(0.014, 0.001, pads_one=False), bulk=True) == 2


def test_a_wrong_first_impression_of_what_batches_cost_is_unlearned(stages: Stages) -> None:
    model = costing(0.030, 0.0)  # as if a large batch had met with other work on the machine
    assert stages.efficient(model, bulk=False) == 8
    for _ in range(100):
        n = min(64, stages.largest(model, bulk=False))
        model.cost.learn(n, 0.014 * n + 0.031, weight=n / 2)
    assert model.cost.efficient(0.95) == pytest.approx(43, rel=0.3)


def waiting(line: Line, model: Model, seconds_left: list[float]) -> None:
    now = time.monotonic()
    for left in seconds_left:
        call = Call(done=None, pending=1, bulk=False, deadline=now + left)  # type: ignore[arg-type]
        line.put([Job(call, b"", model, size=1)])


def test_larger_batches_are_tried_now_and_then_but_not_where_somebody_would_be_late(stages: Stages) -> None:
    model, line = costing(0.010, 0.0), Line()
    for left, largest in (60.0, 32), (0.109, 10):
        sizes = []
        for _ in range(100):
            waiting(line, model, [left] * 32)
            sizes.append(len(line.take_batch(64, stages).jobs))  # type: ignore[union-attr]
            line.clear()
        assert max(sizes) == largest
        assert sorted(sizes)[50] == 8


def test_who_would_come_too_late_even_in_a_small_batch_is_not_computed(stages: Stages) -> None:
    model, line = costing(0.010, 0.0), Line()
    waiting(line, model, [0.015, 0.5, 0.5])
    batch = line.take_batch(64, stages)
    assert batch is not None
    assert (len(batch.dropped), len(batch.jobs)) == (1, 2)
    line.clear()
    waiting(line, model, [0.015])
    alone = line.take_batch(64, stages)
    assert alone is not None
    assert (len(alone.dropped), len(alone.jobs)) == (0, 1)
