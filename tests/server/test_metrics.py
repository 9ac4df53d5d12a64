"""What Prometheus is told, over HTTP, of calls that really happened."""

from __future__ import annotations

import socket
from pathlib import Path

import grpc
import pytest
from lookalike import Client
from lookalike.v1 import embedding_pb2_grpc
from lookalike_server.errors import ListenFailed
from lookalike_server.metrics import Metrics
from operated import free_address, operated, scraped
from photos import encode, photo
from prometheus_client.parser import text_string_to_metric_families
from serving import request

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(address: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(scraped(address))
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_calls_images_batches_and_collections_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = free_address()
    with operated(monkeypatch, tmp_path, metrics_address=address) as running:
        before = scrape(address)
        with running.channel() as channel:
            stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
            stub.Embed(request(encode(photo("chelsea").resize((64, 40))), b"no image"))
            with pytest.raises(grpc.RpcError):
                stub.Embed(request(b"x", recipes=["nowhere"]))
        with Client(running.address) as client:
            client.create_collection("shop")
        after = scrape(address)

    def grown(name: str, **labels: str) -> float:
        key = name, frozenset(labels.items())
        return after[key] - before.get(key, 0)

    embed = "EmbeddingService/Embed"
    assert grown("lookalike_calls_total", method=embed, code="OK", reason="") == 1
    assert grown("lookalike_calls_total", method=embed, code="NOT_FOUND", reason="RECIPE_UNKNOWN") == 1
    assert grown("lookalike_call_seconds_count", method=embed) == 2
    assert grown("lookalike_images_total", origin="computed", reason="", lane="interactive") == 1
    for stage in ("decode", "queue", "device"):
        assert grown("lookalike_stage_seconds_count", stage=stage) == 1
    assert grown("lookalike_batch_images_sum", recipes="tiny") == 1
    released = [k for k in after if k[0] == "lookalike_batches_total" and ("released", "drained") in k[1]]
    assert released
    assert value(after, "lookalike_collection_items", collection="shop") == 0
    assert value(after, "lookalike_recipe_ready", recipe="tiny") == 1
    assert value(after, "lookalike_road_images") == 0
    assert value(after, "lookalike_waiting_images", stage="decode", lane="bulk") == 0
    assert value(after, "process_resident_memory_bytes") > 1e6


def test_a_metrics_address_in_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ListenFailed, match="metrics_address: cannot listen on"),
    ):
        Metrics().serve(f"127.0.0.1:{taken.getsockname()[1]}")
