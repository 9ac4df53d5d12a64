"""Spans of a call, as an OpenTelemetry SDK receives them."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
import pytest
from lookalike.v1 import embedding_pb2_grpc
from lookalike_server.config import Settings
from lookalike_server.errors import ConfigInvalid
from lookalike_server.operations import Operations
from operated import operated
from photos import encode, photo
from serving import request

trace = pytest.importorskip("opentelemetry.trace")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
sdk = pytest.importorskip("opentelemetry.sdk.trace")


def test_a_call_goes_on_its_caller_s_trace_with_a_span_for_each_stage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spans, provider = memory.InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))
    parent = f"00-{'1' * 32}-{'2' * 16}-01"
    with operated(monkeypatch, tmp_path, traces=True) as running, running.channel() as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        stub.Embed(request(encode(photo("chelsea").resize((64, 40)))), metadata=(("traceparent", parent),))
        with pytest.raises(grpc.RpcError):
            stub.Embed(request(b"x", recipes=["nowhere"]))
    *stages, call, refused = spans.get_finished_spans()
    assert call.name == "lookalike.v1.EmbeddingService/Embed"
    assert f"{call.context.trace_id:032x}" == "1" * 32
    assert f"{call.parent.span_id:016x}" == "2" * 16
    assert call.attributes["rpc.grpc.status_code"] == "OK"
    assert call.attributes["lookalike.images"] == 1
    assert {span.name for span in stages} == {"decode", "queue", "device"}
    assert all(span.parent.span_id == call.context.span_id for span in stages)
    assert refused.attributes["lookalike.reason"] == "RECIPE_UNKNOWN"
    assert refused.parent is None


def test_without_the_package_traces_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigInvalid, match=r"pip install 'lookalike\[server,traces\]'"):
        Operations(Settings(data=tmp_path, traces=True))
    Operations(Settings(data=tmp_path))
