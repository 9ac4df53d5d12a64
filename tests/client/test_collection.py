"""Collections over the real wire, against a server made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fake_server import FakeServer, descriptor
from lookalike import Client, Collection, errors
from lookalike.v1 import duplicates_pb2

RESET = (grpc.StatusCode.CANCELLED, "", "reset")  # what a stopping server does to calls it has not begun
UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "DRAINING", "the server is stopping")
DAMAGED = (grpc.StatusCode.DATA_LOSS, "STORE_DAMAGED", "the store is damaged")


@pytest.fixture
def shop(client: Client) -> Collection:
    return client.create_collection("shop")


def test_pictures_become_items_with_their_attributes(shop: Collection) -> None:
    report = shop.add([b"cat", b"dog"], ids=["a", "b"], attributes=[{"price": np.int64(3)}, None])
    assert (report.added, report.failed) == (2, ())
    assert [(item.id, item.attributes) for item in shop.items()] == [("a", {"price": 3}), ("b", {})]
    assert shop.info().item_count == 2


def test_a_files_id_is_its_absolute_path(
    shop: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"cat")
    monkeypatch.chdir(tmp_path)
    shop.add(["cat.jpg"])
    assert shop.get(str(tmp_path / "cat.jpg")).id == str(tmp_path / "cat.jpg")


def test_bytes_need_an_id(shop: Collection) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"images\[0\] is not a file.*ids="):
        shop.add([b"cat"])


def test_each_bad_picture_is_reported_and_the_rest_is_added(shop: Collection) -> None:
    pictures = [b"cat", b"bad", "/nowhere.jpg", b"dog"]
    rows = [None, None, None, {"price": float("nan")}]
    report = shop.add(pictures, ids=list("abcd"), attributes=rows)
    assert report.added == 1
    assert [(f.source, f.id, f.reason) for f in report.failed] == [
        ("images[1]", "b", "IMAGE_TRUNCATED"),
        ("/nowhere.jpg", "c", "FILE_NOT_FOUND"),
        ("images[3]", "d", "ATTRIBUTES_INVALID"),
    ]


def test_an_id_that_is_no_text_fails_alone(shop: Collection) -> None:
    report = shop.add([b"cat", b"dog"], ids=["a", "caf\udce9"])
    assert (report.added, [failure.reason for failure in report.failed]) == (1, ["ARGUMENT_INVALID"])


@pytest.mark.parametrize("fault", [UNAVAILABLE, RESET], ids=["unavailable", "reset"])
def test_a_broken_stream_loses_nothing(shop: Collection, server: FakeServer, fault: Any) -> None:
    server.fail("chunk", fault, fault)
    pictures = [str(i).encode() for i in range(100)]
    report = shop.add(pictures, ids=[str(i) for i in range(100)])
    assert (report.added, shop.info().item_count) == (100, 100)
    assert server.calls["UpsertItemsStream"] == 3


def test_the_error_of_a_write_carries_what_was_written(shop: Collection, server: FakeServer) -> None:
    server.faults["chunk"] = []
    seen = []

    def fail_after_two(progress: object) -> None:
        seen.append(progress)
        if len(seen) == 2:
            server.fail("chunk", DAMAGED)

    pictures = [str(i).encode() for i in range(500)]
    with pytest.raises(errors.DataLoss) as caught:
        shop.add(pictures, ids=[str(i) for i in range(500)], progress=fail_after_two)
    assert caught.value.report is not None
    assert 32 <= caught.value.report.added < 500


@pytest.mark.parametrize(
    ("ids", "attributes"), [(["a"], None), (["a", "b"], [{}]), (["a", "b", "c"], None), ("ab", None)]
)
def test_lists_of_unequal_length_are_refused_before_anything_is_sent(
    shop: Collection, server: FakeServer, ids: list[str], attributes: list[dict[str, int]] | None
) -> None:
    with pytest.raises(errors.InvalidArgument, match="one entry for each item"):
        shop.add([b"cat", b"dog"], ids=ids, attributes=attributes)
    assert server.chunk_sizes == []


def test_an_id_given_twice_ends_as_the_last(shop: Collection, server: FakeServer) -> None:
    report = shop.add([b"cat", b"dog"], ids=["a", "a"])
    assert (report.added, server.chunk_sizes) == (2, [1, 1])
    np.testing.assert_allclose(shop.get("a", descriptors=True).descriptor, descriptor(b"dog"))


def test_progress_tells_how_far_it_is(shop: Collection, capsys: pytest.CaptureFixture[str]) -> None:
    steps = []
    pictures = [str(i).encode() for i in range(40)]
    shop.add(pictures, ids=[str(i) for i in range(40)], progress=steps.append)
    assert [(step.done, step.total) for step in steps] == [(16, 40), (32, 40), (40, 40)]
    shop.add(pictures, ids=[str(i) for i in range(40)], progress=True)
    captured = capsys.readouterr()
    assert "40 of 40 done" in captured.err
    assert captured.out == ""


def test_descriptors_that_are_ready_are_written_as_they_are(shop: Collection) -> None:
    vectors = np.stack([descriptor(b"cat"), descriptor(b"dog")]).astype(np.float64)
    assert shop.upsert(["a", "b"], vectors).added == 2
    assert shop.search(vector=descriptor(b"dog"), k=1)[0].id == "b"
    (failure,) = shop.upsert(["c"], [np.zeros((2, 2))]).failed
    assert failure.reason == "DESCRIPTOR_INVALID"


def test_a_search_takes_a_picture_a_vector_or_an_id(shop: Collection) -> None:
    shop.add([b"cat", b"dog"], ids=["a", "b"], attributes=[{"n": 1}, {"n": 2}])
    (hit, _) = shop.search(b"cat")
    assert (hit.id, hit.attributes) == ("a", {"n": 1})
    assert hit.score == pytest.approx(1)
    assert shop.search(vector=descriptor(b"dog"), k=1)[0].id == "b"
    assert [hit.id for hit in shop.search(id="a")] == ["b"]
    assert shop.search(b"cat", min_score=0.999)[0].id == "a"
    assert shop.search(b"owl", min_score=0.999) == []


def test_a_list_of_queries_gives_a_list_of_lists(shop: Collection, server: FakeServer) -> None:
    pictures = [str(i).encode() for i in range(40)]
    shop.add(pictures, ids=[str(i) for i in range(40)])
    found = shop.search(pictures, k=1)
    assert [hits[0].id for hits in found] == [str(i) for i in range(40)]
    assert server.calls["Search"] == 3
    assert len(shop.search(vector=[descriptor(b"1"), descriptor(b"2")], k=2)) == 2
    assert len(shop.search(id=["1", "2"])) == 2
    assert shop.search([]) == []


def test_a_query_that_cannot_be_read_is_named(shop: Collection) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"images\[1\]: the file ends too early"):
        shop.search([b"cat", b"bad"])
    with pytest.raises(errors.InvalidArgument, match=r"nowhere\.jpg: there is no such file"):
        shop.search("nowhere.jpg")
    with pytest.raises(errors.NotFound, match="'z'"):
        shop.search(id="z")


@pytest.mark.parametrize("query", [{}, {"query": b"cat", "id": "a"}, {"query": b"cat", "k": 0}, {"query": 7}])
def test_a_search_without_one_clear_query_is_refused(shop: Collection, query: dict[str, object]) -> None:
    with pytest.raises(errors.InvalidArgument):
        shop.search(**query)


def test_a_filter_that_cannot_be_read_says_where(shop: Collection) -> None:
    with pytest.raises(errors.InvalidArgument, match="column 1"):
        shop.search(b"cat", where="!")


def test_items_are_read_by_id_and_page_by_page(shop: Collection) -> None:
    shop.add([str(i).encode() for i in range(5)], ids=list("abcde"))
    assert [item.id for item in shop.items()] == list("abcde")
    assert [item.id for item in shop.get(["d", "b"])] == ["d", "b"]
    with pytest.raises(errors.NotFound, match="'z'"):
        shop.get(["a", "z"])
    assert [item.id for item in shop.get(["a", "z"], allow_missing=True)] == ["a"]
    assert next(shop.items(descriptors=True)).descriptor.shape == (8,)


def test_deleting_counts_what_was_there(shop: Collection) -> None:
    shop.add([b"cat", b"dog"], ids=["a", "b"])
    assert shop.delete(["a", "z"]) == 1
    assert shop.delete("b") == 1
    assert list(shop.items()) == []


def test_duplicates_come_as_groups_with_progress(shop: Collection) -> None:
    shop.add([b"cat", b"cat", b"dog", b"dog", b"owl"], ids=list("abcde"), attributes=[{"n": 1}] * 5)
    jobs = []
    groups = shop.find_duplicates(threshold=0.5, policy="oldest", progress=jobs.append)
    assert [[m.id for m in group.members] for group in groups] == [["a", "b"], ["c", "d"]]
    assert groups[0].members[0].attributes == {"n": 1}
    assert [(job.state, job.policy, job.items_done) for job in jobs] == [
        ("running", "oldest", 0),
        ("succeeded", "oldest", 5),
    ]


def test_an_interrupted_search_for_duplicates_is_cancelled_on_the_server(
    shop: Collection, server: FakeServer
) -> None:
    def interrupt(job: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shop.find_duplicates(progress=interrupt)
    assert server.cancelled_jobs == ["job-1"]


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (duplicates_pb2.JOB_STATE_FAILED, errors.DataLoss),
        (duplicates_pb2.JOB_STATE_CANCELLED, errors.Cancelled),
        (duplicates_pb2.JOB_STATE_RUNNING, errors.Unavailable),
    ],
)
def test_a_job_that_does_not_succeed_raises_why(
    shop: Collection, server: FakeServer, state: duplicates_pb2.JobState, error: type[Exception]
) -> None:
    server.job_state = state
    with pytest.raises(error):
        shop.find_duplicates()


def test_a_search_for_duplicates_asks_for_all_that_was_said(shop: Collection, server: FakeServer) -> None:
    shop.find_duplicates(precision=0.95, policy="max:rank.stars", since_sequence=9, reference="kept = true")
    asked = server.job_request
    assert (asked.precision, asked.since_sequence, asked.reference) == (0.95, 9, "kept = true")
    assert not asked.HasField("threshold")
    assert shop.start_duplicate_job(policy="min:price").policy == "min:price"


def test_jobs_can_be_listed_waited_for_and_deleted(
    client: Client, shop: Collection, server: FakeServer
) -> None:
    shop.add([b"cat", b"cat"], ids=["a", "b"])
    job = shop.start_duplicate_job()
    assert [found.id for found in client.jobs.all("shop")] == [job.id]
    assert client.jobs.get(job.id).state == "running"
    assert client.jobs.wait(job.id).state == "succeeded"
    assert [group.representative_id for group in client.jobs.groups(job.id)] == ["a"]
    client.jobs.delete(job.id)
    assert server.deleted_jobs == [job.id]


def test_a_job_is_waited_for_while_its_server_is_started_again(
    client: Client, shop: Collection, server: FakeServer
) -> None:
    job = shop.start_duplicate_job()
    server.fail("watch", *[(grpc.StatusCode.UNAVAILABLE, "DRAINING", "the server is stopping")] * 2)
    assert client.jobs.wait(job.id).state == "succeeded"


def test_a_picture_is_added_unless_a_copy_is_there(shop: Collection) -> None:
    assert shop.add_unless_duplicate(b"cat", id="a", attributes={"n": 1}).added
    again = shop.add_unless_duplicate(b"cat", id="b")
    assert again
    assert not again.added
    assert [(match.id, match.attributes) for match in again.matches] == [("a", {"n": 1})]
    assert shop.check_duplicate(b"cat").matches[0].id == "a"
    assert not shop.check_duplicate(vector=[1.0, 0.0])
    with pytest.raises(errors.InvalidArgument, match="one of the two"):
        shop.check_duplicate()


def test_an_unknown_policy_is_told_with_the_known(shop: Collection) -> None:
    with pytest.raises(errors.InvalidArgument, match="largest, oldest, most_connected"):
        shop.find_duplicates(policy="newest")


def test_a_collection_that_is_gone_is_not_found(client: Client, shop: Collection) -> None:
    client.delete_collection("shop")
    for call in (shop.info, lambda: shop.add([b"cat"], ids=["a"]), lambda: next(shop.items())):
        with pytest.raises(errors.NotFound):
            call()
