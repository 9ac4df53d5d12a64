"""Descriptors to search: made like those of images, or read from a file; and a collection of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lookalike_extractor.recipe import Space
from lookalike_server.answers import Ask
from lookalike_server.building import EXACT_BELOW, IndexSettings
from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.rows import NewRow

K = 10
QUERIES = 500
NAME = "shop"


def image_like(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    """Returns descriptors float32 [n, d] of length 1, a few to a few hundred of them to a cluster."""
    generator = np.random.default_rng(seed)
    spectrum = (np.arange(1, dimension + 1) ** -0.6).astype(np.float32)
    centres = generator.standard_normal((max(1, count // 50), dimension), np.float32) * spectrum
    homes = generator.zipf(1.3, count) % len(centres)
    vectors = generator.standard_normal((count, dimension), np.float32)
    for start in range(0, count, 10_000):
        some = vectors[start : start + 10_000]
        some *= 0.5 * spectrum
        some += centres[homes[start : start + 10_000]]
        some /= np.linalg.norm(some, axis=1, keepdims=True)
    return vectors


@dataclass(frozen=True)
class Data:
    """What is indexed, float32 [n, d], and what is searched for, [q, d]; no query is among the items."""

    items: np.ndarray
    queries: np.ndarray


def made(count: int, dimension: int) -> Data:
    both = image_like(count + QUERIES, dimension)
    return Data(both[:count], both[count:].copy())


def read(path: Path) -> Data:
    """Of the descriptors in a .npy file [n, d] every hundredth, up to 500, is a query."""
    both = np.load(path).astype(np.float32)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    asked = np.zeros(len(both), np.bool_)
    asked[:: max(100, len(both) // QUERIES)] = True
    return Data(both[~asked], both[asked])


def collection_of(catalog: Catalog, items: np.ndarray, kind: str) -> Collection:
    """Returns the collection, with an index of that kind; makes it where it is not there."""
    if NAME not in [one.name for one in catalog.list()]:
        dimension = items.shape[1]
        shop = catalog.create(NAME, Space(id="benchmark", dimension=dimension, recipe="benchmark"))
        shop.configure_index(IndexSettings(kind))
        rate = fill(shop, items)
        print(f"{len(items)} items of {dimension} dimensions, written at {rate:.0f}/s", flush=True)
    shop = catalog.get(NAME)
    if kind == "auto" and shop.count < EXACT_BELOW:  # few are scanned unless one asks for more
        kind = IndexSettings().factory(EXACT_BELOW, shop.space.dimension, rows=shop.count)
    shop.configure_index(IndexSettings(kind))
    seconds = settled(shop)
    status = shop.index_status()
    made = ", ".join(f"{len(one.keys)} at {one.effort}" for one in shop._view.indexes)
    print(f"{status.factory} ({made}): {seconds:.0f} s more; it says its recall is {status.recall:.3f}")
    return shop


def fill(shop: Collection, vectors: np.ndarray) -> float:
    """Returns items written a second, in calls of 1000."""
    begin = time.perf_counter()
    for start in range(0, len(vectors), 1000):
        numbered = enumerate(vectors[start : start + 1000], start)
        shop.upsert([NewRow(f"item-{i}", v, f'{{"n":{i},"slot":{i % 10_000}}}') for i, v in numbered])
    return len(vectors) / (time.perf_counter() - begin)


def settled(shop: Collection) -> float:
    """Waits until there is an index and none is made any more; returns the seconds."""
    begin, calm = time.perf_counter(), 0
    while calm < 5:
        status = shop.index_status()
        there = bool(status.indexed) != (status.settings.kind == "exact")
        calm = calm + 1 if there and not status.building else 0
        time.sleep(0.2)
    return time.perf_counter() - begin


def recall(shop: Collection, queries: np.ndarray, where: str = "") -> float:
    """Returns the share of the hits of exact searches that searches find; ties count by score."""
    found, exact = shop.ask(queries, Ask(K, where)), shop.ask(queries, Ask(K, where, exact=True))
    good = wanted = 0
    for hits, best in zip(found.hits, exact.hits, strict=True):
        wanted += len(best)
        good += sum(hit.score >= best[-1].score for hit in hits) if best else 0
    return good / wanted if wanted else 1.0
