"""What writing, replacing and opening take."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from data import NAME, K, fill, image_like, recall, settled
from lookalike_server.answers import Ask
from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.rows import NewRow

_SECONDS = 5.0


def durable(shop: Collection) -> Iterator[str]:
    """Single items, each client waiting for its acknowledgement: on disk, and seen by searches."""
    for clients in (1, 8, 32):
        rows = [NewRow(f"client-{i}", v) for i, v in enumerate(image_like(clients, shop.space.dimension))]
        times: list[float] = []
        end = time.perf_counter() + _SECONDS

        def write(row: NewRow, times: list[float] = times, end: float = end) -> None:
            while (begin := time.perf_counter()) < end:
                shop.upsert([row])
                times.append(time.perf_counter() - begin)

        threads = [threading.Thread(target=write, args=(row,)) for row in rows]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        shop.delete([row.id for row in rows])
        p50, p99 = np.percentile(times, [50, 99]) * 1e3
        rate = len(times) / _SECONDS
        yield f"{clients:4} clients   {rate:6.0f} upserts/s   p50 {p50:5.1f} ms   p99 {p99:5.1f} ms"


def opening(root: Path, queries: np.ndarray) -> Iterator[str]:
    """Files as the system's cache has them."""
    begin = time.perf_counter()
    with Catalog(root) as catalog:
        shop = catalog.get(NAME)
        opened = time.perf_counter() - begin
        shop.ask(queries[:1], Ask(K))
        answered = time.perf_counter() - begin
        while not shop.index_status().indexed and shop.get_document("indexes") not in (None, "[]"):
            time.sleep(0.02)
        indexed = time.perf_counter() - begin
    yield f"{shop.count} items open in {opened:.2f} s, first answer after {answered:.2f} s"
    yield f"index there after {indexed:.2f} s; until then searches are exact"
    used = sum(path.stat().st_size for path in (root / NAME).rglob("*") if path.is_file())
    yield f"on disk: {used / (4 * shop.count * shop.space.dimension):.2f} times the descriptors"


def replaced(root: Path, folder: Path, items: np.ndarray, queries: np.ndarray) -> Iterator[str]:
    """In a copy of the collection; items get the descriptors of others."""
    shutil.copytree(root / NAME, folder / NAME)
    with Catalog(folder) as catalog:
        shop = catalog.get(NAME)
        settled(shop)
        fill(shop, np.random.default_rng(4).permutation(items[: len(items) // 2]))
        yield f"half of the items replaced: recall {recall(shop, queries):.4f} at once"
        waited = settled(shop)
        kinds = ", ".join(f"{len(one.keys)} at {one.effort.width}" for one in shop._view.indexes)
        yield f"{recall(shop, queries):.4f} when indexes are made anew ({waited:.0f} s later: {kinds})"
