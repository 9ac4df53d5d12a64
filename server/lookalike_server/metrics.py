"""What a server tells Prometheus.

Counters and histograms are fed as things happen, by calls and by the engine; numbers that somebody else keeps
(queues, caches, collections) are asked for when they are scraped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from lookalike_server.calls import CallRecord
from lookalike_server.errors import ListenFailed

if TYPE_CHECKING:
    from lookalike_server.statistics import BatchDone, ImageDone

_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# A loop that does not answer a scrape within this is as good as dead, and the scrape should say so.
_SCRAPE_SECONDS = 5.0

Families = Iterable[Metric]
Rows = Mapping[Any, float]


class Metrics:
    """Observes calls (calls.CallObserver) and the engine (statistics.Observer). One for each server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        given: dict[str, Any] = {"registry": self.registry}
        self._calls = Counter(
            "lookalike_calls", "Calls that ended, by how.", ["method", "code", "reason"], **given
        )
        self._in_flight = Gauge("lookalike_calls_in_flight", "Calls that are being answered.", **given)
        self._call_seconds = Histogram(
            "lookalike_call_seconds",
            "Whole calls; a stream is one.",
            ["method"],
            buckets=_CALL_BUCKETS,
            **given,
        )
        self._images = Counter(
            "lookalike_images",
            "Images whose road ended: computed, cached, shared or dropped; with the reason of their fault.",
            ["origin", "reason", "lane"],
            **given,
        )
        stages = Histogram(
            "lookalike_stage_seconds",
            "Of one image: decoding, waiting for the device, its batch on the device.",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            **given,
        )
        self._stage = {stage: stages.labels(stage) for stage in ("decode", "queue", "device")}
        self._batch = Histogram(
            "lookalike_batch_images", "Images of a batch.", ["recipes"], buckets=_BATCH_BUCKETS, **given
        )
        self._batches = Counter(
            "lookalike_batches",
            "Batches, by why they held no more.",
            ["recipes", "released", "failed"],
            **given,
        )
        self._refused = Counter(
            "lookalike_refused_images", "Images refused at the door.", ["reason"], **given
        )

    @contextmanager
    def around(self, record: CallRecord, metadata: Mapping[str, Any]) -> Iterator[None]:
        self._in_flight.inc()
        try:
            yield
        finally:
            method = record.method.rpartition(".")[2]
            self._in_flight.dec()
            self._calls.labels(method, record.code, record.reason).inc()
            self._call_seconds.labels(method).observe(record.seconds)

    def image_done(self, image: ImageDone) -> None:
        self._images.labels(image.origin, image.reason, _lane(image.bulk)).inc()
        if image.device_s:  # it went all the way
            self._stage["decode"].observe(image.decode_s)
            self._stage["queue"].observe(image.queue_s)
            self._stage["device"].observe(image.device_s)

    def batch_done(self, batch: BatchDone) -> None:
        self._batch.labels(batch.recipe_group).observe(batch.images)
        self._batches.labels(batch.recipe_group, batch.released, str(batch.failed).lower()).inc()

    def refused(self, reason: str, images: int) -> None:
        self._refused.labels(reason).inc(images)

    def watch(self, look: Callable[[], Families]) -> None:
        """Asks `look` at each scrape, in the event loop that runs now."""
        self.registry.register(_Watch(look, asyncio.get_running_loop()))

    def serve(self, address: str) -> Callable[[], None]:
        """Serves /metrics on HOST:PORT in a thread. Returns what ends it. Raises ListenFailed."""
        host, _, port = address.rpartition(":")
        try:
            server, thread = start_http_server(int(port), host.strip("[]"), self.registry)
        except OSError as error:
            raise ListenFailed(
                f"metrics_address: cannot listen on {address}: {error.strerror or error}."
            ) from None

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self.port = server.server_port
        return close


class _Watch:
    """A collector that looks from within the event loop, where what it looks at lives."""

    def __init__(self, look: Callable[[], Families], loop: asyncio.AbstractEventLoop) -> None:
        self._look = look
        self._loop = loop

    def describe(self) -> Families:
        return []

    def collect(self) -> Families:
        async def look() -> list[Metric]:
            return list(self._look())

        return asyncio.run_coroutine_threadsafe(look(), self._loop).result(_SCRAPE_SECONDS)


def gauge(name: str, text: str, labels: Sequence[str] = (), rows: Rows = MappingProxyType({})) -> Metric:
    """A metric of rows by their labels, which are a tuple, or one string."""
    return _filled(GaugeMetricFamily(name, text, labels=labels), rows)


def counter(name: str, text: str, labels: Sequence[str] = (), rows: Rows = MappingProxyType({})) -> Metric:
    """The same of a number that only grows."""
    return _filled(CounterMetricFamily(name, text, labels=labels), rows)


def _filled(family: Any, rows: Rows) -> Metric:
    for labels, value in rows.items():
        family.add_metric([labels] if isinstance(labels, str) else list(labels), value)
    metric: Metric = family
    return metric


def _lane(bulk: bool) -> str:
    return "bulk" if bulk else "interactive"
