"""The client over the real wire, against a server made by hand."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from threading import Timer
from typing import Any

import grpc
import numpy as np
import pytest
from fake_server import DIMENSION, FakeServer, descriptor
from lookalike import Client, errors

UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "DRAINING", "the server is stopping")
QUEUE_FULL = (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "the queue is full")
INTERNAL = (grpc.StatusCode.INTERNAL, "INTERNAL", "our fault")


def test_a_picture_becomes_a_descriptor(client: Client) -> None:
    vector = client.embed(b"cat")
    assert (vector.dtype, vector.shape) == (np.float32, (DIMENSION,))
    np.testing.assert_allclose(vector, descriptor(b"cat"))


def test_a_path_is_read(client: Client, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"cat")
    np.testing.assert_array_equal(client.embed(tmp_path / "cat.jpg"), client.embed(b"cat"))


def test_descriptors_come_in_the_order_of_the_pictures_whatever_the_server_does(client: Client) -> None:
    pictures = [f"picture {i}".encode() for i in range(100)]
    results = list(client.embed_many(pictures))
    assert [result.index for result in results] == list(range(100))
    for picture, result in zip(pictures, results, strict=True):
        np.testing.assert_allclose(result.descriptor, descriptor(picture))


def test_chunks_keep_to_the_servers_limits(client: Client, server: FakeServer) -> None:
    pictures = [bytes([i]) * 300_000 for i in range(1, 10)]
    assert len(list(client.embed_many(pictures))) == 9
    assert max(server.chunk_sizes) == 3  # a fourth would make a message of more than 1 MiB


def test_a_generator_is_not_read_far_ahead(client: Client) -> None:
    taken = 0

    def pictures():
        nonlocal taken
        for i in range(10_000):
            taken += 1
            yield str(i).encode()

    next(client.embed_many(pictures()))
    assert taken <= 100


def test_an_error_in_the_callers_generator_reaches_the_caller(client: Client) -> None:
    def pictures():
        yield b"cat"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(client.embed_many(pictures()))


def test_no_pictures_give_no_results(client: Client) -> None:
    assert list(client.embed_many([])) == []


def test_a_bad_picture_is_reported_in_its_place(client: Client, tmp_path: Path) -> None:
    pictures = [b"cat", tmp_path / "nowhere.jpg", b"bad", b"dog"]
    results = list(client.embed_many(pictures, on_error="report"))
    reasons = [result.failure and result.failure.reason for result in results]
    assert reasons == [None, "FILE_NOT_FOUND", "IMAGE_TRUNCATED", None]
    assert results[1].source == str(tmp_path / "nowhere.jpg")
    np.testing.assert_allclose(results[3].descriptor, descriptor(b"dog"))


def test_many_pictures_that_are_all_unreadable_here_are_reported_without_a_call(
    client: Client, server: FakeServer
) -> None:
    results = list(client.embed_many(["/nowhere.jpg"] * 200, on_error="report"))
    assert len(results) == 200
    assert server.chunk_sizes == []


def test_a_bad_picture_is_raised_with_its_name(client: Client) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"images\[1\]: the file ends too early") as caught:
        list(client.embed_many([b"cat", b"bad"]))
    assert caught.value.reason == "IMAGE_TRUNCATED"


def test_a_missing_file_is_named(client: Client) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"nowhere\.jpg: there is no such file"):
        client.embed("nowhere.jpg")


def test_a_single_picture_in_place_of_a_list_is_refused(client: Client) -> None:
    with pytest.raises(errors.InvalidArgument, match="single one"):
        list(client.embed_many("cat.jpg"))


def test_a_picture_beyond_the_servers_limit_fails_alone_and_is_not_sent(client: Client) -> None:
    small, large = client.embed_many([b"cat", b"x" * 600_000], on_error="report")
    assert small.failure is None
    assert "600,000 bytes, the server takes at most 524,288" in large.failure.message


def test_pixels_that_fit_into_no_message_fail_alone(client: Client) -> None:
    pixels = np.zeros((700, 700, 3), np.uint8)
    (result,) = client.embed_many([pixels], on_error="report")
    assert result.failure.reason == "IMAGE_TOO_LARGE"


def test_an_unknown_recipe_is_told_with_the_nearest(client: Client) -> None:
    with pytest.raises(errors.NotFound, match="Did you mean 'near_duplicate'") as caught:
        client.embed(b"cat", recipe="near-duplicate")
    assert (caught.value.reason, caught.value.metadata) == ("RECIPE_UNKNOWN", {"field": "x"})
    with pytest.raises(errors.NotFound, match="Did you mean"):
        list(client.embed_many([b"cat"], recipe="near-duplicate"))


def test_nobody_listening_says_how_to_start_a_server() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(errors.Unavailable, match="lookalike serve"):
        client.info()


@pytest.mark.parametrize("target", ["", "localhost", ":50051", "localhost:port", None, 50051])
def test_a_target_that_is_no_address_is_refused(target: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="give host:port"):
        Client(target)


@pytest.mark.parametrize("fault", [UNAVAILABLE, QUEUE_FULL])
def test_passing_trouble_is_retried(client: Client, server: FakeServer, fault: tuple) -> None:
    server.fail("Embed", fault, fault)
    client.embed(b"x" * 400_000)  # more than gRPC keeps for a retry unless told to
    assert server.calls["Embed"] == 3


def test_a_fault_of_the_server_is_not_retried(client: Client, server: FakeServer) -> None:
    server.fail("Embed", INTERNAL)
    with pytest.raises(errors.InternalError, match="our fault"):
        client.embed(b"cat")
    assert server.calls["Embed"] == 1


def test_making_a_collection_is_never_repeated(client: Client, server: FakeServer) -> None:
    server.fail("CreateCollection", UNAVAILABLE)
    with pytest.raises(errors.Unavailable):
        client.create_collection("shop")
    assert server.calls["CreateCollection"] == 1


def test_a_broken_stream_goes_on_where_it_broke(client: Client, server: FakeServer) -> None:
    server.fail("chunk", UNAVAILABLE, QUEUE_FULL)
    pictures = [str(i).encode() for i in range(100)]
    assert [result.index for result in client.embed_many(pictures)] == list(range(100))
    assert server.calls["EmbedStream"] == 3


@pytest.mark.parametrize("call", ["Embed", "chunk"])
def test_a_retry_waits_as_long_as_the_server_said(client: Client, server: FakeServer, call: str) -> None:
    client.limits()
    server.refuse(call, 0.6)
    start = time.monotonic()
    assert client.embed(b"cat").shape if call == "Embed" else list(client.embed_many([b"cat"]))
    assert time.monotonic() - start >= 0.6


def test_an_error_tells_when_to_come_back(client: Client, server: FakeServer) -> None:
    client.limits()
    server.refuse("CreateCollection", 0.25)
    with pytest.raises(errors.ResourceExhausted) as caught:
        client.create_collection("shop")
    assert caught.value.retry_after == 0.25


def test_the_timeout_is_a_deadline(client: Client, server: FakeServer) -> None:
    client.limits()
    server.delay = 2.0
    with pytest.raises(errors.DeadlineExceeded, match=server.target):
        client.embed(b"cat", timeout=0.1)
    with pytest.raises(errors.DeadlineExceeded):
        list(client.embed_many([b"cat"], timeout=0.1))


def test_the_deadline_of_a_stream_is_not_stretched_by_retries(client: Client, server: FakeServer) -> None:
    client.limits()
    server.fail("chunk", *[UNAVAILABLE] * 20)
    with pytest.raises(errors.DeadlineExceeded):
        list(client.embed_many([b"cat"], timeout=0.6))
    assert server.calls["EmbedStream"] <= 3  # the pause after the third is longer than the timeout


def test_a_client_is_shared_by_threads(client: Client) -> None:
    found: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        found[i] = client.embed(str(i).encode())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        np.testing.assert_allclose(found[i], descriptor(str(i).encode()))


def test_forgetting_to_close_warns(server: FakeServer) -> None:
    client = Client(server.target)
    with pytest.warns(ResourceWarning, match="unclosed Client"):
        client.__del__()


def test_closing_twice_does_no_harm(server: FakeServer) -> None:
    client = Client(server.target)
    client.close()
    client.close()


def test_a_closed_client_says_so(server: FakeServer) -> None:
    with Client(server.target) as client:
        pass
    with pytest.raises(ValueError, match="closed"):
        client.info()


def test_closing_ends_a_stream_that_is_under_way(server: FakeServer) -> None:
    server.delay = 0.3
    with Client(server.target) as client:
        client.limits()
        Timer(0.1, client.close).start()
        with pytest.raises(errors.Cancelled):
            list(client.embed_many([b"cat"]))


def test_an_unknown_on_error_is_refused(client: Client) -> None:
    with pytest.raises(errors.InvalidArgument, match="'raise' or 'report'"):
        list(client.embed_many([b"cat"], on_error="ignore"))  # type: ignore[arg-type]


def test_the_server_describes_itself_its_recipes_and_its_nodes(client: Client) -> None:
    assert client.info().limits.max_k == 100
    (recipe,) = client.recipes()
    assert (recipe.name, recipe.taps[0].pooling) == ("near_duplicate", "gem(p=3)")
    assert [backbone.name for backbone in client.backbones()] == ["tiny"]
    assert client.nodes("tiny")[0].shape == (8, 4, 4)
    with pytest.raises(errors.NotFound, match="Did you mean 'tiny'"):
        client.nodes("tinny")


def test_collections_are_made_listed_and_deleted(client: Client) -> None:
    client.create_collection("shop")
    assert [info.name for info in client.collections()] == ["shop"]
    with pytest.raises(errors.AlreadyExists):
        client.create_collection("shop")
    assert client.create_collection("shop", exist_ok=True).name == "shop"
    with pytest.raises(errors.FailedPrecondition, match="has recipe 'near_duplicate'"):
        client.create_collection("shop", recipe="semantic", exist_ok=True)
    client.delete_collection("shop")
    with pytest.raises(errors.NotFound, match="Did you mean 'shop'"):
        client.collection("shops")
