"""Duplicate jobs over the real wire, with a hand-made catalog in place of stored collections."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from lookalike.v1 import duplicates_pb2 as pb
from lookalike.v1 import duplicates_pb2_grpc, items_pb2, types_pb2
from lookalike_extractor.recipe import Space
from lookalike_server.aliases import Aliases
from lookalike_server.catalog import Catalog
from lookalike_server.duplicates import search
from lookalike_server.duplicates.job import read_job
from lookalike_server.duplicates.shards import Folder
from lookalike_server.errors import CollectionUnknown, StoreDamaged
from lookalike_server.interceptors import CallInterceptor
from lookalike_server.rows import NewRow
from lookalike_server.services.duplicates import DuplicateServicer
from looping import Ready, looping

PAIRS = 3  # in the collection below: items 0 and 1, 2 and 3, 4 and 5, each pair alike


@dataclass
class FakeCollection:
    """Six items in three pairs; `gate` holds its snapshots back until it is opened."""

    name: str = "shop"
    space: Any = field(default_factory=lambda: SimpleNamespace(recipe="near_duplicate"))
    gate: threading.Event = field(default_factory=threading.Event)
    fault: Exception | None = None
    ids: list[str] = field(default_factory=lambda: [f"item{i}" for i in range(2 * PAIRS)])
    descriptors: np.ndarray | None = None

    def snapshot(self, where: str = "", *, reference: str = "") -> Any:
        assert self.gate.wait(20)
        if self.fault:
            raise self.fault
        axes = np.arange(len(self.ids)) // 2 % PAIRS
        made = np.eye(PAIRS, dtype=np.float32)[axes]
        return SimpleNamespace(
            sequence=17,
            keys=np.arange(1, len(self.ids) + 1),
            ids=self.ids,
            descriptors=made if self.descriptors is None else self.descriptors,
            digests=[b""] * len(self.ids),
            attributes_json=[f'{{"width": {i}, "height": 10}}' for i in range(len(self.ids))],
            reference=np.arange(len(self.ids)) % 2 == 0,
        )


class FakeCatalog:
    def __init__(self, root: Path, collection: FakeCollection) -> None:
        self.root = root
        self.aliases = Aliases(root / ".aliases")
        (root / collection.name).mkdir(exist_ok=True)
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
def service(collection: FakeCollection, tmp_path: Path) -> Iterator[Service]:
    with served(FakeCatalog(tmp_path, collection)) as running:
        yield running
        collection.gate.set()


@contextmanager
def served(catalog: Any) -> Iterator[Service]:
    engine: Any = SimpleNamespace(recipes={"near_duplicate": SimpleNamespace(duplicate_threshold=0.9)})
    servicer = DuplicateServicer(catalog, engine)

    async def main(ready: Ready[int]) -> None:
        server = grpc.aio.server(interceptors=[CallInterceptor()])
        duplicates_pb2_grpc.add_DuplicateServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stop = asyncio.Event()
        ready(port, stop.set)
        await stop.wait()
        await server.stop(0)

    with looping(main) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Service(servicer, duplicates_pb2_grpc.DuplicateServiceStub(channel))
        servicer.close()


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
    monkeypatch.setattr(search, "_EXACT_CELLS", 3)
    likely = service.watch(service.start())[-1]
    assert likely.sampled_pairs == likely.sampled_pairs_found == 2 * PAIRS  # seen from either end


def test_a_job_tells_how_many_items_a_chain_would_have_joined(
    service: Service, collection: FakeCollection, tmp_path: Path
) -> None:
    angles = np.radians([0, 8, 16, 24, 32])  # each within the threshold of the next
    collection.ids = [f"item{i}" for i in range(5)]
    collection.descriptors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    job_id = service.start(threshold=0.985)
    last = service.watch(job_id)[-1]
    assert (last.group_count, last.split_count) == (2, 3)
    listed = {member.item_id for group in service.groups(job_id).groups for member in group.members}
    assert len(listed) == 4
    assert read_job(tmp_path / "shop" / "jobs" / job_id).status.split == 3


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


def test_closing_leaves_every_job_and_ends_every_watch_quickly(
    service: Service, collection: FakeCollection
) -> None:
    collection.ids = [f"item{i}" for i in range(20_000)]
    collection.gate.clear()
    running, waiting = service.start(threshold=1.0), service.start()
    collection.gate.set()
    started = time.monotonic()
    service.servicer.close()
    assert time.monotonic() - started < 30
    for job in (running, waiting):
        with pytest.raises(grpc.RpcError) as caught:
            service.watch(job)
        assert reason(caught.value) == "DRAINING"
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
        ({"collection": "shop", "policy": pb.REPRESENTATIVE_POLICY_MAX_ATTRIBUTE}, "ARGUMENT_INVALID"),
        ({"collection": "shop", "policy_attribute": "price"}, "ARGUMENT_INVALID"),
        ({"collection": "shop", "precision": 0.9, "threshold": 0.9}, "ARGUMENT_INVALID"),
        ({"collection": "shop", "reference": "price <"}, "FILTER_INVALID"),
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
    with Catalog(tmp_path / "data") as catalog:
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


def test_jobs_are_listed_in_their_order_and_found_by_id(service: Service) -> None:
    first, second = service.start(), service.start(threshold=0.5)
    service.watch(second)
    listed = service.stub.ListDuplicateJobs(pb.ListDuplicateJobsRequest()).jobs
    assert [job.id for job in listed] == [first, second]
    assert service.stub.GetDuplicateJob(pb.GetDuplicateJobRequest(job_id=second)).job == listed[1]
    assert listed[0].create_time.ToNanoseconds() <= listed[0].end_time.ToNanoseconds()
    assert not service.stub.ListDuplicateJobs(pb.ListDuplicateJobsRequest(collection="other")).jobs


def test_a_job_that_has_ended_can_be_deleted_and_one_at_work_cannot(
    service: Service, collection: FakeCollection, tmp_path: Path
) -> None:
    collection.gate.clear()
    job_id = service.start()
    request = pb.DeleteDuplicateJobRequest(job_id=job_id)
    with pytest.raises(grpc.RpcError) as caught:
        service.stub.DeleteDuplicateJob(request)
    assert reason(caught.value) == "JOB_NOT_DONE"
    collection.gate.set()
    service.watch(job_id)
    service.stub.DeleteDuplicateJob(request)
    assert not list((tmp_path / "shop" / "jobs").iterdir())
    with pytest.raises(grpc.RpcError) as caught:
        service.groups(job_id)
    assert reason(caught.value) == "JOB_UNKNOWN"


def test_jobs_and_their_groups_survive_the_server(collection: FakeCollection, tmp_path: Path) -> None:
    catalog = FakeCatalog(tmp_path, collection)
    with served(catalog) as before:
        done = before.start()
        before.watch(done)
        groups = before.groups(done)
        collection.gate.clear()
        running, waiting, cancelled = before.start(), before.start(threshold=0.5), before.start()
        before.cancel(cancelled)
        threading.Timer(0.3, collection.gate.set).start()
    with served(catalog) as after:
        assert after.groups(done) == groups
        assert after.watch(running)[-1].state == pb.JOB_STATE_SUCCEEDED
        assert after.watch(waiting)[-1].threshold == 0.5
        assert after.watch(cancelled)[-1].state == pb.JOB_STATE_CANCELLED
        assert after.groups(running) == groups


def test_a_failure_is_remembered_across_servers(collection: FakeCollection, tmp_path: Path) -> None:
    catalog = FakeCatalog(tmp_path, collection)
    collection.fault = StoreDamaged("page 3 is not what was written", collection="shop")
    with served(catalog) as before:
        failed = before.watch(before.start())[-1]
    with served(catalog) as after:
        assert after.watch(failed.id) == [failed]


def test_jobs_go_with_their_collection(service: Service, tmp_path: Path) -> None:
    job_id = service.start()
    service.watch(job_id)
    shutil.rmtree(tmp_path / "shop")
    assert not service.stub.ListDuplicateJobs(pb.ListDuplicateJobsRequest()).jobs
    with pytest.raises(grpc.RpcError) as caught:
        service.start()
    assert reason(caught.value) == "COLLECTION_UNKNOWN"


def test_a_job_keeps_only_its_groups_once_it_has_ended(service: Service, tmp_path: Path) -> None:
    job_id = service.start()
    service.watch(job_id)
    names = sorted(path.name for path in (tmp_path / "shop" / "jobs" / job_id).iterdir())
    assert names == ["groups-00000.parquet", "job.json", "manifest.json"]


def test_a_full_disk_ends_the_job_with_what_to_do_and_the_next_one_runs(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "put", full)
        failed = service.watch(service.start())[-1]
    assert failed.state == pb.JOB_STATE_FAILED
    assert "disk is full" in failed.error.message
    assert service.watch(service.start())[-1].state == pb.JOB_STATE_SUCCEEDED


def test_groups_whose_file_was_damaged_are_not_handed_out(collection: FakeCollection, tmp_path: Path) -> None:
    catalog = FakeCatalog(tmp_path, collection)
    with served(catalog) as before:
        job_id = before.start()
        before.watch(job_id)
    file = tmp_path / "shop" / "jobs" / job_id / "groups-00000.parquet"
    file.write_bytes(file.read_bytes()[:-20] + b"x" * 20)
    with served(catalog) as after, pytest.raises(grpc.RpcError) as caught:
        after.groups(job_id)
    assert reason(caught.value) == "STORE_DAMAGED"


def test_only_groups_with_new_items_are_found_from_a_sequence_number(service: Service) -> None:
    job_id = service.start(since_sequence=3)
    assert service.watch(job_id)[-1].since_sequence == 3
    found = [[m.item_id for m in g.members] for g in service.groups(job_id).groups]
    assert found == [["item3", "item2"], ["item5", "item4"]]


def test_items_of_the_reference_are_never_copies(service: Service) -> None:
    job_id = service.start(reference="width >= 0")  # the even ones, says the collection
    assert service.watch(job_id)[-1].reference == "width >= 0"
    found = [[m.item_id for m in g.members] for g in service.groups(job_id).groups]
    assert found == [["item0", "item1"], ["item2", "item3"], ["item4", "item5"]]


def test_the_attribute_of_a_policy_chooses_the_representative(service: Service) -> None:
    job_id = service.start(policy=pb.REPRESENTATIVE_POLICY_MIN_ATTRIBUTE, policy_attribute="width")
    assert service.watch(job_id)[-1].policy_attribute == "width"
    assert service.groups(job_id).groups[0].representative_id == "item0"


@pytest.fixture
def stored(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with Catalog(tmp_path / "data") as catalog:
        monkeypatch.setattr(service.servicer, "_catalog", catalog)
        yield catalog.create("shop", Space("0" * 64, 2, "near_duplicate"))


def new_item(item_id: str, degrees: float) -> items_pb2.NewItem:
    vector = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)
    tensor = types_pb2.Tensor(dtype=types_pb2.DATA_TYPE_FLOAT32, shape=[2], data=vector.tobytes())
    return items_pb2.NewItem(id=item_id, descriptor=tensor, attributes_json='{"price":1}')


def add(service: Service, item_id: str, degrees: float, **fields: Any) -> pb.AddUnlessDuplicateResponse:
    request = pb.AddUnlessDuplicateRequest(collection="shop", item=new_item(item_id, degrees), **fields)
    response: pb.AddUnlessDuplicateResponse = service.stub.AddUnlessDuplicate(request)
    return response


def test_an_item_is_added_unless_a_copy_of_it_is_there(service: Service, stored: Any) -> None:
    first, copy, other = (add(service, *item) for item in (("a", 0), ("b", 5), ("c", 90)))
    assert (first.added, copy.added, other.added) == (True, False, True)
    assert [(m.item_id, m.attributes_json) for m in copy.matches] == [("a", '{"price":1}')]
    assert copy.matches[0].score == pytest.approx(np.cos(np.radians(5)), abs=1e-6)
    assert (first.sequence, other.sequence, stored.count) == (1, 2, 2)
    assert add(service, "b", 5, threshold=0.9999).added


def test_of_many_copies_that_come_at_once_exactly_one_is_added(service: Service, stored: Any) -> None:
    for angle in (0, 90, 180):
        items = [(f"{angle}/{i}", angle + i / 10) for i in range(12)]
        with ThreadPoolExecutor(12) as threads:
            answers = list(threads.map(lambda item: add(service, *item), items))
        assert sum(answer.added for answer in answers) == 1
        winner = next(item_id for (item_id, _), answer in zip(items, answers, strict=True) if answer.added)
        assert all(a.matches[0].item_id == winner for a in answers if not a.added)
    assert stored.count == 3


def test_a_copy_that_was_deleted_hinders_nobody(service: Service, stored: Any) -> None:
    assert add(service, "a", 0).added
    stored.delete(["a"])
    assert add(service, "b", 0).added


def test_whether_a_picture_is_a_copy_can_be_asked_without_adding_it(service: Service, stored: Any) -> None:
    add(service, "a", 0)

    def ask(degrees: float, **fields: Any) -> list[str]:
        request = pb.CheckDuplicateRequest(collection="shop", item=new_item("", degrees), **fields)
        return [match.item_id for match in service.stub.CheckDuplicate(request).matches]

    assert ask(3) == ["a"]
    assert ask(80) == []
    assert ask(3, where="price > 1") == []
    assert stored.count == 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"item": items_pb2.NewItem(id="a")}, "ARGUMENT_INVALID"),
        ({"item": new_item("", 0)}, "ARGUMENT_INVALID"),
        ({"item": new_item("a", 0), "threshold": 2.0}, "ARGUMENT_INVALID"),
    ],
)
@pytest.mark.usefixtures("stored")
def test_an_item_that_cannot_be_added_is_refused(
    service: Service, fields: dict[str, Any], expected: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        service.stub.AddUnlessDuplicate(pb.AddUnlessDuplicateRequest(collection="shop", **fields))
    assert reason(caught.value) == expected
