"""Values to messages and back, errors to statuses."""

from contextlib import suppress

import numpy as np
import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st
from lookalike.v1 import types_pb2
from lookalike_extractor.errors import ImageTruncated
from lookalike_extractor.recipe import Space
from lookalike_server.errors import ArgumentInvalid, ItemUnknown, QueueFull
from lookalike_server.wire import array_to_tensor, space_to_wire, status_of, tensor_to_array
from serving import info


@given(st.lists(st.integers(0, 4), max_size=4), st.sampled_from([np.float32, np.uint8]))
def test_an_array_comes_back_as_it_was(shape: list[int], dtype: type) -> None:
    array = np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)
    back = tensor_to_array(array_to_tensor(array), "tensor")
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_rows_out_of_order_in_memory_travel_in_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    np.testing.assert_array_equal(tensor_to_array(array_to_tensor(array), "tensor"), array)


@given(st.binary(max_size=40), st.lists(st.integers(-3, 1 << 62), max_size=4), st.integers(-5, 5))
def test_any_tensor_is_an_array_or_a_refusal(data: bytes, shape: list[int], dtype: int) -> None:
    tensor = types_pb2.Tensor(dtype=dtype, shape=shape, data=data)  # type: ignore[arg-type]
    with suppress(ArgumentInvalid):
        assert tensor_to_array(tensor, "images[3]").tobytes() == data


def test_a_space_keeps_its_id_and_dimension() -> None:
    wire = space_to_wire(Space(id="abc", dimension=5, recipe="mine"))
    assert (wire.id, wire.dimension, wire.recipe) == ("abc", 5, "mine")
    assert wire.metric == types_pb2.METRIC_COSINE


def test_a_status_says_reason_domain_and_metadata() -> None:
    status = status_of(ItemUnknown("There is no item 'x'.", item="x"))
    assert (status.code, status.message) == (5, "There is no item 'x'.")
    assert (info(status).reason, info(status).domain) == ("ITEM_UNKNOWN", "lookalike.v1")
    assert info(status).metadata == {"item": "x"}


def test_a_full_queue_says_when_to_come_back() -> None:
    retry = error_details_pb2.RetryInfo()
    assert status_of(QueueFull("full", retry_after_ms="250")).details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 250


def test_what_nobody_expected_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    status = status_of(KeyError("password"))
    assert "password" not in str(status)
    assert "password" in caplog.text
    assert info(status).metadata["incident"] in caplog.text


@pytest.mark.parametrize("text", ["x" * 10_000, "é" * 10_000, "\ud800" * 10])
def test_any_message_fits_into_trailers(text: str) -> None:
    status = status_of(ImageTruncated(text, field=text))
    assert len(status.SerializeToString()) < 2000
