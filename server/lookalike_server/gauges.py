"""The numbers that are asked for at each scrape: of the engine, the collections, the certificate."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from lookalike_server.metrics import counter, gauge

if TYPE_CHECKING:
    from lookalike_server.catalog import Catalog
    from lookalike_server.engine import Engine
    from lookalike_server.fronts.server import FrontEnds
    from lookalike_server.reloading import Reloading
    from lookalike_server.statistics import Statistics


def of_engine(engine: Engine) -> Iterator[Metric]:
    now, health = engine.statistics(), engine.health()
    yield gauge("lookalike_road_images", "Images on the road now.", rows={(): now.images})
    yield gauge("lookalike_road_bytes", "Bytes of those images.", rows={(): now.bytes})
    yield gauge(
        "lookalike_waiting_images", "Images that wait for a stage now.", ["stage", "lane"], now.waiting
    )
    yield counter("lookalike_stage_restarts", "Stages that had died.", ["stage"], now.restarts)
    ready = {name: float(model.ready) for name, model in health.models.items()}
    yield gauge(
        "lookalike_recipe_ready", "1 while images go the whole way through a recipe.", ["recipe"], ready
    )
    replicas = {name: float(replica.ready) for name, replica in health.replicas.items()}
    yield gauge(
        "lookalike_replica_ready", "1 while images go through all models of a replica.", ["replica"], replicas
    )
    yield from _of_cache(now)


def of_reloads(reloading: Reloading) -> Iterator[Metric]:
    ended = {outcome: float(reloading.counts[outcome]) for outcome in ("done", "failed")}
    yield counter("lookalike_reloads", "Reloads of recipes, by how they ended.", ["outcome"], ended)
    failed = {(): float(bool(reloading.fault))}
    yield gauge("lookalike_reload_failed", "1 while the last reload of recipes had failed.", rows=failed)


def _of_cache(now: Statistics) -> Iterator[Metric]:
    cache = now.cache
    asked = {"hit": cache.hits, "miss": cache.misses, "shared": cache.shared}
    yield counter(
        "lookalike_cache_lookups", "Results looked for in the cache, by outcome.", ["outcome"], asked
    )
    yield counter("lookalike_cache_evictions", "Results that made room for others.", rows={(): cache.evicted})
    yield gauge("lookalike_cache_entries", "Results in the cache.", rows={(): cache.entries})
    yield gauge("lookalike_cache_bytes", "Bytes of those results.", rows={(): cache.bytes})


def of_front_ends(fronts: FrontEnds | None) -> Iterator[Metric]:
    """None: the server has none."""
    running, restarts = (fronts.running(), fronts.restarts) if fronts else (0, 0)
    yield gauge("lookalike_front_ends", "Front-ends that run now.", rows={(): running})
    text = "Front-ends that had died and were started again."
    yield counter("lookalike_front_end_restarts", text, rows={(): restarts})


def of_collections(catalog: Catalog) -> Iterator[Metric]:
    rows = {collection.name: collection.count for collection in catalog.list()}
    yield gauge("lookalike_collection_items", "Items of each collection.", ["collection"], rows)
    yield from _of_probes(catalog)


def _of_probes(catalog: Catalog) -> Iterator[Metric]:
    """What probes of the recall found; begins those that are due."""
    known: dict[str, float] = {}
    taken: dict[str, float] = {}
    for collection in catalog.list():
        probe = collection.recall_probe
        if probe is None:
            continue
        if probe.claim():
            catalog.workers.submit(collection.probe_recall)
        taken[collection.name] = probe.taken
        if probe.recall is not None:
            known[collection.name] = probe.recall
    yield gauge(
        "lookalike_collection_recall",
        "Share of the ten nearest that searches through an index found, in the last 100 probes.",
        ["collection"],
        known,
    )
    yield counter(
        "lookalike_collection_recall_probes",
        "Searches through an index that were done exactly as well.",
        ["collection"],
        taken,
    )


def of_certificate(expires: datetime | None) -> Iterator[Metric]:
    rows = {} if expires is None else {(): expires.timestamp()}
    text = "When the server's certificate expires, in seconds since 1970."
    yield gauge("lookalike_certificate_expiry_timestamp_seconds", text, rows=rows)
