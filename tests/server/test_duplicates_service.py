"""Duplicate jobs over the real wire, with a hand-made catalog in place of stored collections."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from lookalike.v1 import duplicates_pb2 as pb
from lookalike.v1 import duplicates_pb2_grpc
from lookalike_extractor.recipe import Space
from lookalike_server.catalog import Catalog
from lookalike_server.duplicates import search
from lookalike_server.errors import CollectionUnknown, StoreDamaged
from lookalike_server.interceptors import CallInterceptor
from lookalike_server.rows import NewRow
from lookalike_server.services.duplicates import DuplicateServicer

PAIRS = 3  # in the collection below: items 0 and 1, 2 and 3, 4 and 5, each pair alike


@dataclass
class FakeCollection:
    """Six items in three pairs; `gate` holds its snapshots back until it is opened."""

    name: str = "shop"
    space: Any = field(default_factory=lambda: SimpleNamespace(recipe="near_duplicate"))
    gate: threading.Event = field(default_factory=threading.Event)
    fault: Exception | None = None
    ids: list[str] = field(default_factory=lambda: [f"item{i}" for i in range(2 * PAIRS)])

    def snapshot(self, where: str = "") -> Any:
        assert self.gate.wait(20)
        if self.fault:
            raise self.fault
        axes = np.arange(len(self.ids)) // 2 % PAIRS
        return SimpleNamespace(
            sequence=17,
            ids=self.ids,
            descriptors=np.eye(PAIRS, dtype=np.float32)[axes],
            digests=[b""] * len(self.ids),
            attributes_json=[f'{{"width": {i}, "height": 10}}' for i in range(len(self.ids))],
        )


class FakeCatalog:
    def __init__(self, collection: FakeCollection) -> None:
        self.collection = collection

    def get(self, name: str) -> FakeCollection:
        if name != self.collection.name:
            raise CollectionUnknown(f"There is no collection {name!r}.", collection=name)
        return self.collection


@dataclass
class Service:
    servicer: DuplicateServicer
    stub: Any

    def start(self, **request: Any) -> str:
        job_id: str = self.stub.StartDuplicateJob(
            pb.StartDuplicateJobRequest(collection="shop", **request)
        ).job.id
        return job_id

    def watch(self, job_id: str) -> list[pb.DuplicateJob]:
        return [
            r.job for r in self.stub.WatchDuplicateJob(pb.WatchDuplicateJobRequest(job_id=job_id), timeout=20)
        ]

    def cancel(self, job_id: str) -> pb.DuplicateJob:
        job: pb.DuplicateJob = self.stub.CancelDuplicateJob(pb.CancelDuplicateJobRequest(job_id=job_id)).job
        return job

    def groups(self, job_id: str, size: int = 0, token: str = "") -> pb.ListDuplicateGroupsResponse:
        request = pb.ListDuplicateGroupsRequest(job_id=job_id, page_size=size, page_token=token)
        response: pb.ListDuplicateGroupsResponse = self.stub.ListDuplicateGroups(request)
        return response


@pytest.fixture
def collection() -> FakeCollection:
    collection = FakeCollection()
    collection.gate.set()
    return collection


@pytest.fixture
def service(collection: FakeCollection) -> Iterator[Service]:
    engine: Any = SimpleNamespace(recipes={"near_duplicate": SimpleNamespace(duplicate_threshold=0.9)})
    catalog: Any = FakeCatalog(collection)
    servicer = DuplicateServicer(catalog, engine)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def serve() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(interceptors=[CallInterceptor()])
        duplicates_pb2_grpc.add_DuplicateServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(serve(), loop).result(20)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Service(servicer, duplicates_pb2_grpc.DuplicateServiceStub(channel))
        collection.gate.set()
        servicer.close()
        asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


def reason(error: grpc.RpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    trailers = dict(error.trailing_metadata())
    status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details[0].Unpack(info)
    return info.reason


def test_a_job_that_compares_only_likely_pairs_states_its_recall(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_pair = service.watch(service.start())[-1]
    assert (every_pair.sampled_pairs, every_pair.sampled_pairs_found) == (0, 0)
    monkeypatch.setattr(search, "_EXACT_UP_TO", 3)
    likely = service.watch(service.start())[-1]
    assert likely.sampled_pairs == likely.sampled_pairs_found == 2 * PAIRS  # seen from either end


def test_a_job_runs_to_its_end_and_its_groups_can_be_listed(service: Service) -> None:
    job_id = service.start()
    last = service.watch(job_id)[-1]
    assert last.state == pb.JOB_STATE_SUCCEEDED
    assert (last.items_done, last.items_total, last.pairs_found, last.group_count) == (6, 6, PAIRS, PAIRS)
    assert (last.collection, last.sequence, last.threshold) == ("shop", 17, pytest.approx(0.9))
    listed = service.groups(job_id)
    assert [[m.item_id for m in g.members] for g in listed.groups] == [
        ["item1", "item0"],
        ["item3", "item2"],
        ["item5", "item4"],
    ]
    assert listed.groups[0].representative_id == "item1"
    assert listed.groups[0].members[1].attributes_json == '{"width": 0, "height": 10}'
    assert listed.next_page_token == ""


def test_a_collection_without_items_gives_no_groups(service: Service, collection: FakeCollection) -> None:
    collection.ids = []
    assert service.watch(service.start())[-1].state == pb.JOB_STATE_SUCCEEDED


def test_threshold_and_policy_are_those_asked_for(service: Service) -> None:
    job_id = service.start(threshold=0.0, policy=pb.REPRESENTATIVE_POLICY_MOST_CONNECTED)
    last = service.watch(job_id)[-1]
    assert (last.threshold, last.policy) == (0.0, pb.REPRESENTATIVE_POLICY_MOST_CONNECTED)
    assert last.pairs_found == 15


def test_pages_follow_each_other_until_the_last(service: Service) -> None:
    job_id = service.start()
    service.watch(job_id)
    first = service.groups(job_id, size=2)
    second = service.groups(job_id, size=2, token=first.next_page_token)
    assert (len(first.groups), len(second.groups), second.next_page_token) == (2, 1, "")


def test_a_page_stays_small_enough_for_any_client(service: Service, collection: FakeCollection) -> None:
    collection.ids = [f"{i:0>700000}" for i in range(6)]
    job_id = service.start()
    service.watch(job_id)
    first = service.groups(job_id)
    assert len(first.groups) == 1
    assert first.next_page_token


def test_watching_ends_when_the_job_does_and_starts_with_how_it_is_now(
    service: Service, collection: FakeCollection
) -> None:
    collection.gate.clear()
    job_id = service.start()
    stream = service.stub.WatchDuplicateJob(pb.WatchDuplicateJobRequest(job_id=job_id), timeout=20)
    assert next(stream).job.state in (pb.JOB_STATE_PENDING, pb.JOB_STATE_RUNNING)
    collection.gate.set()
    assert [r.job.state for r in stream][-1] == pb.JOB_STATE_SUCCEEDED
    assert [j.state for j in service.watch(job_id)] == [pb.JOB_STATE_SUCCEEDED]


def test_a_watcher_that_leaves_does_not_end_the_job(service: Service, collection: FakeCollection) -> None:
    collection.gate.clear()
    job_id = service.start()
    stream = service.stub.WatchDuplicateJob(pb.WatchDuplicateJobRequest(job_id=job_id))
    next(stream)
    stream.cancel()
    collection.gate.set()
    assert service.watch(job_id)[-1].state == pb.JOB_STATE_SUCCEEDED


def test_a_running_job_can_be_cancelled(service: Service, collection: FakeCollection) -> None:
    collection.gate.clear()
    job_id = service.start()
    service.cancel(job_id)
    collection.gate.set()
    assert service.watch(job_id)[-1].state == pb.JOB_STATE_CANCELLED
    with pytest.raises(grpc.RpcError) as caught:
        service.groups(job_id)
    assert reason(caught.value) == "JOB_NOT_DONE"


def test_a_waiting_job_that_is_cancelled_ends_at_once(service: Service, collection: FakeCollection) -> None:
    collection.gate.clear()
    service.start()
    waiting = service.start()
    assert service.cancel(waiting).state == pb.JOB_STATE_CANCELLED


def test_cancelling_a_job_that_has_ended_changes_nothing(service: Service) -> None:
    job_id = service.start()
    service.watch(job_id)
    assert service.cancel(job_id).state == pb.JOB_STATE_SUCCEEDED
    assert len(service.groups(job_id).groups) == PAIRS


def test_a_failing_job_tells_why_and_the_next_one_runs(service: Service, collection: FakeCollection) -> None:
    collection.fault = StoreDamaged("page 3 is not what was written", collection="shop")
    failed = service.watch(service.start())[-1]
    assert failed.state == pb.JOB_STATE_FAILED
    assert failed.error.message == "page 3 is not what was written"
    collection.fault = None
    assert service.watch(service.start())[-1].state == pb.JOB_STATE_SUCCEEDED


def test_a_job_that_fails_by_our_fault_leaks_nothing(service: Service, collection: FakeCollection) -> None:
    collection.fault = ValueError("secret")
    failed = service.watch(service.start())[-1]
    assert failed.state == pb.JOB_STATE_FAILED
    assert "secret" not in failed.error.message


def test_too_many_waiting_jobs_are_refused(service: Service, collection: FakeCollection) -> None:
    collection.gate.clear()
    with pytest.raises(grpc.RpcError) as caught:
        _ = [service.start() for _ in range(40)]
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason(caught.value) == "QUEUE_FULL"


def test_the_results_of_the_last_hundred_jobs_are_kept(service: Service) -> None:
    jobs = [service.start() for _ in range(1)]
    for _ in range(101):
        service.watch(jobs[-1])
        jobs.append(service.start())
    service.watch(jobs[-1])
    assert service.groups(jobs[2]).groups
    with pytest.raises(grpc.RpcError) as caught:
        service.groups(jobs[0])
    assert reason(caught.value) == "JOB_UNKNOWN"


def test_closing_ends_every_job_and_every_watch_quickly(service: Service, collection: FakeCollection) -> None:
    collection.ids = [f"item{i}" for i in range(20_000)]
    collection.gate.clear()
    running, waiting = service.start(threshold=1.0), service.start()
    watched: list[pb.DuplicateJob] = []
    watcher = threading.Thread(target=lambda: watched.extend(service.watch(waiting)))
    watcher.start()
    collection.gate.set()
    started = time.monotonic()
    service.servicer.close()
    assert time.monotonic() - started < 5
    watcher.join(5)
    assert watched[-1].state == pb.JOB_STATE_CANCELLED
    assert service.watch(running)[-1].state == pb.JOB_STATE_CANCELLED
    with pytest.raises(grpc.RpcError) as caught:
        service.start()
    assert reason(caught.value) == "DRAINING"


@pytest.mark.parametrize(
    ("request_fields", "expected"),
    [
        ({"collection": "shpo"}, "COLLECTION_UNKNOWN"),
        ({"collection": "shop", "threshold": 1.5}, "ARGUMENT_INVALID"),
        ({"collection": "shop", "threshold": float("nan")}, "ARGUMENT_INVALID"),
        ({"collection": "shop", "policy": 99}, "ARGUMENT_INVALID"),
        ({"collection": "shop", "where": "price <"}, "FILTER_INVALID"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_at_the_start(
    service: Service, request_fields: dict[str, Any], expected: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        service.stub.StartDuplicateJob(pb.StartDuplicateJobRequest(**request_fields))
    assert reason(caught.value) == expected


def test_a_collection_of_a_recipe_that_is_not_served_needs_a_threshold(
    service: Service, collection: FakeCollection
) -> None:
    collection.space.recipe = "retired"
    with pytest.raises(grpc.RpcError) as caught:
        service.start()
    assert reason(caught.value) == "RECIPE_UNKNOWN"
    assert service.watch(service.start(threshold=0.9))[-1].state == pb.JOB_STATE_SUCCEEDED


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda s, job: s.watch("nobody"), "JOB_UNKNOWN"),
        (lambda s, job: s.cancel("nobody"), "JOB_UNKNOWN"),
        (lambda s, job: s.groups("nobody"), "JOB_UNKNOWN"),
        (lambda s, job: s.groups(job, size=1001), "MESSAGE_TOO_LARGE"),
        (lambda s, job: s.groups(job, token="3"), "PAGE_TOKEN_INVALID"),
        (lambda s, job: s.groups(job, token="-1"), "PAGE_TOKEN_INVALID"),
        (lambda s, job: s.groups(job, token="9" * 5000), "PAGE_TOKEN_INVALID"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(service: Service, call: Any, expected: str) -> None:
    job_id = service.start()
    service.watch(job_id)
    with pytest.raises(grpc.RpcError) as caught:
        call(service, job_id)
    assert reason(caught.value) == expected


def test_a_job_reads_a_stored_collection_and_only_the_items_that_fit(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Catalog(tmp_path) as catalog:
        stored = catalog.create("shop", Space("0" * 64, PAIRS, "near_duplicate"))
        axes = np.eye(PAIRS, dtype=np.float32)
        stored.upsert(
            [
                NewRow(f"item{i}", axes[i // 2], json.dumps({"price": i, "width": i, "height": 9}), b"")
                for i in range(2 * PAIRS)
            ]
        )
        monkeypatch.setattr(service.servicer, "_catalog", catalog)
        job_id = service.start(where="price < 5")
        last = service.watch(job_id)[-1]
        assert (last.items_total, last.sequence) == (5, stored.sequence)
        found = [[m.item_id for m in g.members] for g in service.groups(job_id).groups]
        assert found == [["item1", "item0"], ["item3", "item2"]]
