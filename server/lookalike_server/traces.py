"""OpenTelemetry: a span for each call, and spans for the stages of its slowest image.

Only the API is used: where traces go is decided by whoever runs the server, with the SDK and its environment
variables (`opentelemetry-instrument lookalike serve`). A caller's own trace goes on when it sends
`traceparent`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lookalike_server.calls import CallRecord

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from lookalike_server.calls import Stages

_OURS = {"INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE", "UNIMPLEMENTED", "DEADLINE_EXCEEDED"}


class Tracer:
    """A calls.CallObserver. Raises ModuleNotFoundError without the `traces` extra."""

    def __init__(self) -> None:
        from opentelemetry import propagate, trace

        self._api = trace
        self._extract = propagate.extract
        self._tracer = trace.get_tracer("lookalike_server")

    @contextmanager
    def around(self, record: CallRecord, metadata: Mapping[str, Any]) -> Iterator[None]:
        context = self._extract({key: value for key, value in metadata.items() if isinstance(value, str)})
        service, _, method = record.method.strip("/").partition("/")
        span = self._tracer.start_span(
            f"{service}/{method}",
            context,
            self._api.SpanKind.SERVER,
            {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        )
        record.listeners.append(lambda stages: self._stages(span, stages))
        with self._api.use_span(span, record_exception=False, set_status_on_exception=False):
            try:
                yield
            finally:
                self._conclude(span, record)
                span.end()

    def _conclude(self, span: Span, record: CallRecord) -> None:
        span.set_attributes(
            {
                "rpc.grpc.status_code": record.code,
                "lookalike.request_id": record.request_id,
                "lookalike.images": record.images,
                "lookalike.images.failed": record.failed,
            }
        )
        if record.reason:
            span.set_attribute("lookalike.reason", record.reason)
        if record.code in _OURS:
            span.set_status(self._api.Status(self._api.StatusCode.ERROR, record.reason))

    def _stages(self, span: Span, images: Sequence[Stages]) -> None:
        """The stages lie one behind the other and end now, which is when the engine's answer came."""
        if not images:
            return
        slowest = max(images, key=lambda image: image.decode_s + image.queue_s + image.device_s)
        within = self._api.set_span_in_context(span)
        end = time.time_ns()
        for name in ("device", "queue", "decode"):
            start = end - round(getattr(slowest, f"{name}_s") * 1e9)
            self._tracer.start_span(name, within, start_time=start).end(end)
            end = start
