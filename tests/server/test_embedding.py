"""Embed and EmbedStream over the real wire."""

import threading
import time
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from lookalike.v1 import embedding_pb2 as pb
from lookalike.v1 import types_pb2
from lookalike_server.config import Settings
from photos import encode, photo
from serving import (
    Running,
    SlowDevice,
    SpoiledDevice,
    image_of,
    info,
    reason,
    request,
    rich_status,
    rows,
    serving,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    return encode(photo("chelsea"))


def eventually(condition: Callable[[], bool]) -> bool:
    """Waits for what another thread is about to do."""
    limit = time.monotonic() + 60
    while not condition() and time.monotonic() < limit:
        time.sleep(0.005)
    return condition()


def chunk(number: int, *images: bytes) -> pb.EmbedStreamRequest:
    return pb.EmbedStreamRequest(chunk_id=number, request=request(*images))


def refused(server: Running, message: pb.EmbedRequest) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        server.embedding.Embed(message, timeout=10)
    return caught.value


def test_a_photo_becomes_a_descriptor_of_length_one(server: Running, jpeg: bytes) -> None:
    response = server.embedding.Embed(request(jpeg))
    assert rows(response).shape == (1, 8)
    assert np.linalg.norm(rows(response)) == pytest.approx(1, abs=1e-6)
    assert response.batches[0].recipe == "tiny"
    assert response.batches[0].space.id == "space-of-tiny"
    assert (response.results[0].width, response.results[0].height) == photo("chelsea").size
    assert len(response.results[0].digest) == 32


def test_pixels_give_the_descriptor_of_their_lossless_file(server: Running) -> None:
    image = photo("astronaut")
    response = server.embedding.Embed(request(encode(image, "PNG"), np.asarray(image)))
    file, pixels = rows(response)
    np.testing.assert_array_equal(file, pixels)


def test_the_receipt_tells_where_the_time_went(server: Running, jpeg: bytes) -> None:
    receipt = server.embedding.Embed(request(jpeg)).receipt
    assert 0 < receipt.decode.ToMicroseconds() < 5_000_000
    assert 0 < receipt.device.ToMicroseconds() < 5_000_000


def test_a_bad_image_fails_alone(server: Running, jpeg: bytes) -> None:
    response = server.embedding.Embed(request(jpeg, b"not an image", jpeg, jpeg[:2000]))
    first, text, second, cut = response.results
    assert (first.row, second.row) == (0, 1)
    assert not first.status.code
    assert not second.status.code
    assert reason(text.status) == "IMAGE_FORMAT_UNSUPPORTED"
    assert reason(cut.status) == "IMAGE_TRUNCATED"
    assert rows(response).shape == (2, 8)


def test_an_image_that_was_not_sent_fails_alone(server: Running, jpeg: bytes) -> None:
    message = pb.EmbedRequest(images=[types_pb2.Image(), image_of(jpeg), image_of(b"")])
    missing, good, empty = server.embedding.Embed(message).results
    assert reason(missing.status) == reason(empty.status) == "IMAGE_MISSING"
    assert info(empty.status).metadata["field"] == "images[2].data"
    assert not good.status.code


def test_when_all_images_are_bad_there_are_no_rows(server: Running) -> None:
    response = server.embedding.Embed(request(b"x", b"y"))
    assert rows(response).shape == (0, 8)


def test_no_images_is_an_invalid_request(server: Running) -> None:
    status = rich_status(refused(server, pb.EmbedRequest()))
    assert reason(status) == "ARGUMENT_INVALID"
    assert info(status).metadata["field"] == "images"


def test_an_unknown_recipe_is_answered_with_the_nearest(server: Running, jpeg: bytes) -> None:
    error = refused(server, request(jpeg, recipes=["tinny"]))
    assert error.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    assert reason(rich_status(error)) == "RECIPE_UNKNOWN"
    assert "Did you mean 'tiny'?" in rich_status(error).message


def test_a_recipe_like_no_other_is_answered_with_those_there_are(server: Running, jpeg: bytes) -> None:
    error = refused(server, request(jpeg, recipes=["nope"]))
    assert rich_status(error).message == "There is no recipe 'nope' on this server. It computes tiny."


def test_one_recipe_twice_is_refused(server: Running, jpeg: bytes) -> None:
    assert (
        info(rich_status(refused(server, request(jpeg, recipes=["", "tiny"])))).metadata["field"] == "recipes"
    )


@pytest.mark.parametrize(
    ("tensor", "field"),
    [
        (types_pb2.Tensor(dtype=2, shape=[2, 2, 3], data=bytes(11)), "images[1].pixels.data"),
        (types_pb2.Tensor(dtype=2, shape=[2, 2, 4], data=bytes(16)), "images[1].pixels.shape"),
        (types_pb2.Tensor(dtype=2, shape=[-1, -1, 3], data=bytes(3)), "images[1].pixels.shape"),
        (types_pb2.Tensor(dtype=2, shape=[1 << 40, 1 << 40, 3], data=b""), "images[1].pixels.data"),
        (types_pb2.Tensor(dtype=1, shape=[1, 1, 3], data=bytes(12)), "images[1].pixels.dtype"),
        (types_pb2.Tensor(dtype=77, shape=[1, 1, 3], data=bytes(3)), "images[1].pixels.dtype"),  # type: ignore[arg-type]
    ],
)
def test_a_tensor_that_contradicts_itself_is_refused_with_its_field(
    server: Running, jpeg: bytes, tensor: types_pb2.Tensor, field: str
) -> None:
    message = pb.EmbedRequest(images=[image_of(jpeg), types_pb2.Image(pixels=tensor)])
    status = rich_status(refused(server, message))
    assert reason(status) == "ARGUMENT_INVALID"
    assert info(status).metadata["field"] == field


def test_too_many_images_are_refused() -> None:
    with serving(settings=Settings(max_images_per_message=2)) as server:
        status = rich_status(refused(server, request(b"a", b"b", b"c")))
    assert reason(status) == "MESSAGE_TOO_LARGE"
    assert "send at most 2" in status.message


def test_bytes_that_are_no_message_are_an_invalid_argument(server: Running) -> None:
    call = server.channel.unary_unary("/lookalike.v1.EmbeddingService/Embed")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff\xff\xff", timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]


def test_a_very_long_recipe_name_still_gets_its_status(server: Running, jpeg: bytes) -> None:
    status = rich_status(refused(server, request(jpeg, recipes=["é" * 1_000_000])))
    assert reason(status) == "RECIPE_UNKNOWN"
    assert len(status.message.encode()) <= 1024


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(jpeg: bytes) -> None:
    device = SlowDevice()
    with serving(device, most_images=4) as server:
        waiting = server.embedding.Embed.future(request(*[jpeg] * 4))
        assert eventually(lambda: server.engine.room.images == 4)
        status = rich_status(refused(server, request(jpeg)))
        device.open()
        assert len(waiting.result(60).results) == 4
    retry = error_details_pb2.RetryInfo()
    assert reason(status) == "QUEUE_FULL"
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() > 0
    assert "retry_after_ms" not in info(status).metadata


def test_a_call_larger_than_the_whole_queue_is_answered_when_nothing_else_is_there(jpeg: bytes) -> None:
    with serving(most_images=4) as server:
        assert len(server.embedding.Embed(request(*[jpeg] * 9), timeout=10).results) == 9


def test_images_that_arrive_while_the_device_is_busy_share_a_batch(jpeg: bytes) -> None:
    device = SlowDevice()
    with serving(device) as server:
        calls = [server.embedding.Embed.future(request(jpeg))]
        assert device.entered.acquire(timeout=60)
        calls += [server.embedding.Embed.future(request(jpeg)) for _ in range(5)]
        assert eventually(lambda: server.engine.decoded == 5)
        device.open()
        for call in calls:
            call.result(60)
    assert device.batches == [1, 5]


def test_images_of_a_cancelled_call_are_never_computed(jpeg: bytes) -> None:
    device = SlowDevice()
    with serving(device) as server:
        first = server.embedding.Embed.future(request(jpeg))
        assert device.entered.acquire(timeout=60)
        second = server.embedding.Embed.future(request(*[jpeg] * 3))
        assert eventually(lambda: server.engine.room.images == 4)
        second.cancel()
        assert eventually(lambda: server.calls.calls == 1)
        device.open()
        first.result(60)
        assert eventually(lambda: server.engine.room.images == 0)
    assert device.batches == [1]


def test_images_whose_deadline_passed_are_never_computed(jpeg: bytes) -> None:
    device = SlowDevice()
    with serving(device) as server:
        first = server.embedding.Embed.future(request(jpeg))
        assert device.entered.acquire(timeout=60)
        with pytest.raises(grpc.RpcError) as caught:
            server.embedding.Embed(request(*[jpeg] * 3), timeout=0.1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
        assert eventually(lambda: server.calls.calls == 1)
        device.open()
        first.result(60)
    assert device.batches == [1]


@pytest.mark.parametrize("error", [RuntimeError("secret detail"), SystemExit("secret detail")])
def test_a_failing_batch_answers_every_waiter_and_the_next_one_is_fine(
    jpeg: bytes, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def fail(_: object) -> dict[str, np.ndarray]:
        raise error

    device = SpoiledDevice(fail)
    with serving(device) as server:
        failed = server.embedding.Embed(request(jpeg, jpeg), timeout=10)
        device.spoil = lambda answer: answer
        healed = server.embedding.Embed(request(jpeg), timeout=10)
    for result in failed.results:
        assert reason(result.status) == "INTERNAL"
        assert "secret" not in result.status.message
        assert info(result.status).metadata["incident"] in caplog.text
    assert "secret detail" in caplog.text
    assert rows(healed).shape == (1, 8)


def test_a_row_of_nan_fails_its_image_alone(jpeg: bytes) -> None:
    def spoil(answer: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        answer["tiny"][len(answer["tiny"]) // 2, 3] = np.nan
        return answer

    device = SpoiledDevice(spoil)
    with serving(device) as server:
        results = server.embedding.Embed(request(jpeg), timeout=10).results
    assert [reason(result.status) for result in results] == ["INTERNAL"]


def test_a_device_that_no_longer_works_is_noticed(jpeg: bytes) -> None:
    device = SpoiledDevice(lambda answer: {"tiny": answer["tiny"][:0]})
    with serving(device) as server:
        server.embedding.Embed(request(jpeg), timeout=10)
        assert not server.engine.broken.is_set()
        device.usable = lambda: False  # type: ignore[method-assign]
        server.embedding.Embed(request(jpeg), timeout=10)
        assert eventually(server.engine.broken.is_set)


def test_too_few_rows_fail_their_batch(jpeg: bytes) -> None:
    with serving(SpoiledDevice(lambda answer: {"tiny": answer["tiny"][:0]})) as server:
        (result,) = server.embedding.Embed(request(jpeg), timeout=10).results
    assert reason(result.status) == "INTERNAL"


def test_an_unknown_error_of_a_servicer_tells_an_id_and_no_more(
    server: Running, jpeg: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(server.engine, "embed", broken)
    status = rich_status(refused(server, request(jpeg)))
    assert reason(status) == "INTERNAL"
    assert "secret" not in status.message
    assert info(status).metadata["incident"] in caplog.text


def test_a_stream_answers_every_chunk_under_its_id(server: Running, jpeg: bytes) -> None:
    chunks = [chunk(number, *[jpeg] * (number % 3 + 1)) for number in range(40)]
    answers = {
        answer.chunk_id: len(answer.response.results)
        for answer in server.embedding.EmbedStream(iter(chunks), timeout=20)
    }
    assert answers == {number: number % 3 + 1 for number in range(40)}


def test_a_stream_is_held_back_while_the_queue_is_full_and_nothing_is_refused() -> None:
    device, sent, large = SlowDevice(), [], encode(photo("astronaut"), "BMP")

    def chunks() -> Iterator[pb.EmbedStreamRequest]:
        for number in range(60):
            sent.append(number)
            yield chunk(number, large)

    with serving(device, most_images=4) as server:
        answers = server.embedding.EmbedStream(chunks(), timeout=60)
        assert device.entered.acquire(timeout=60)
        time.sleep(0.5)
        held_at, on_the_road = len(sent), server.engine.room.images
        device.open()
        assert sum(not answer.response.results[0].status.code for answer in answers) == 60
    assert on_the_road <= 4
    assert held_at < 40


def test_an_interactive_call_is_let_in_beside_a_saturating_stream(jpeg: bytes) -> None:
    device = SlowDevice()
    with serving(device, most_images=8) as server:
        stream = server.embedding.EmbedStream((chunk(n, jpeg) for n in range(50)), timeout=60)
        assert eventually(lambda: server.engine.room.images == 6)
        call = server.embedding.Embed.future(request(jpeg))
        assert eventually(lambda: server.engine.room.images == 7)
        device.open()
        assert len(call.result(60).results) == 1
        assert len(list(stream)) == 50


def test_a_chunk_that_is_wrong_as_a_whole_ends_the_stream(server: Running, jpeg: bytes) -> None:
    answers = server.embedding.EmbedStream(iter([chunk(1, jpeg), chunk(2)]), timeout=10)
    with pytest.raises(grpc.RpcError) as caught:
        list(answers)
    assert info(rich_status(caught.value)).metadata["field"] == "request.images"


def test_a_stream_that_its_client_leaves_drops_its_images(jpeg: bytes) -> None:
    device = SlowDevice()
    with serving(device) as server:
        hold = threading.Event()

        def chunks() -> Iterator[pb.EmbedStreamRequest]:
            yield from (chunk(number, jpeg) for number in range(8))
            hold.wait(20)

        stream = server.embedding.EmbedStream(chunks(), timeout=30)
        assert device.entered.acquire(timeout=60)
        stream.cancel()
        hold.set()
        assert eventually(lambda: server.calls.calls == 0)
        device.open()
        assert eventually(lambda: server.engine.room.images == 0)
    assert len(device.batches) == 1


def test_draining_ends_a_stream_after_what_is_in_flight(jpeg: bytes) -> None:
    device, hold = SlowDevice(), threading.Event()

    def chunks() -> Iterator[pb.EmbedStreamRequest]:
        yield chunk(1, jpeg)
        hold.wait(20)

    with serving(device) as server:
        stream = server.embedding.EmbedStream(chunks(), timeout=30)
        assert device.entered.acquire(timeout=60)
        server.loop.call_soon_threadsafe(server.engine.draining.set)
        device.open()
        assert next(stream).chunk_id == 1
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        hold.set()
        assert reason(rich_status(refused(server, request(jpeg)))) == "DRAINING"
    assert reason(rich_status(caught.value)) == "DRAINING"
