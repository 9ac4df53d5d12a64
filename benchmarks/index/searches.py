"""Searches of a collection, in this program and over gRPC, beside those of other libraries."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np
from data import NAME, K, recall
from lookalike import Client
from lookalike_server.answers import Ask
from lookalike_server.collection import Collection
from peers import EFFORTS, Peer

SHARES = {"100 %": 10_000, "10 %": 1000, "1 %": 100, "0.1 %": 10, "0.01 %": 1}
_ROUNDS = 5
_SLACK = 0.001
_TIMED = 256
Search = Callable[[np.ndarray], object]


def approximate(shop: Collection, peers: Sequence[Peer], queries: np.ndarray) -> Iterator[str]:
    """Others with the least effort that has the collection's recall; queries a CPU second, one thread."""
    floor = np.array([hits[-1].score for hits in shop.search(queries, K).hits]) - 1e-5
    rows: dict[str, tuple[str, Search]] = {}
    (index, *others) = shop._view.indexes
    own = recall(shop, queries)
    rows["collection"] = (f"{own:.4f}        ", lambda q: shop.ask(q, Ask(K)))
    if not others:
        rows["its index alone"] = (
            f"        {index.effort.width}x{index.effort.refine}",
            lambda q: index.proposals(q, K, None),
        )
    for peer in peers:
        reached = _tuned(peer, shop, queries, floor, own - _SLACK)
        rows[peer.name] = (f"{reached:.4f}  {peer.effort:4}", peer.search)
    rates = [raced({name: row[1] for name, row in rows.items()}, queries[:_TIMED], n) for n in (1, 64)]
    base = [one.get("hnswlib M=16", float("nan")) for one in rates]
    yield f"{'':16} recall  effort   q/s, calls of 1   of 64   times hnswlib"
    for name, (told, _) in rows.items():
        one, many = rates[0][name], rates[1][name]
        yield f"{name:16} {told}   {one:15.0f} {many:7.0f}   {one / base[0]:5.2f} {many / base[1]:5.2f}"


def _tuned(peer: Peer, shop: Collection, queries: np.ndarray, floor: np.ndarray, least: float) -> float:
    reached = 0.0
    for peer.effort in EFFORTS:
        numbers = peer.search(queries)
        keys, places = np.unique(numbers + 1, return_inverse=True)  # the item of number i has the key i + 1
        vectors = np.zeros((len(keys), queries.shape[1]))
        shop._view.gather(keys.tolist(), vectors)
        scores = np.einsum("qd,qkd->qk", queries, vectors[places.reshape(numbers.shape)])
        reached = float(np.mean(scores >= floor[:, None]))
        if reached >= least:
            break
    return reached


def raced(searches: dict[str, Search], queries: np.ndarray, together: int) -> dict[str, float]:
    """Returns queries a CPU second, the best of rounds in which they take turns."""
    calls = [queries[i : i + together] for i in range(0, len(queries), together)]
    best = dict.fromkeys(searches, float("inf"))
    for _ in range(_ROUNDS):
        for name, search in searches.items():
            begin = time.process_time()
            for call in calls:
                search(call)
            best[name] = min(best[name], time.process_time() - begin)
    return {name: len(queries) / seconds for name, seconds in best.items()}


def exact(shop: Collection, items: np.ndarray) -> Iterator[str]:
    """Against IndexFlatIP as it comes."""
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)

    def stock(queries: np.ndarray) -> object:
        # A collection moves a threshold of the whole process; put it back for the other side.
        faiss.cvar.distance_compute_blas_threshold = 128_000
        faiss.omp_set_num_threads(1)
        return index.search(queries, K)

    for count in (1, 8, 64, 256):
        queries = items[:: len(items) // count][:count].copy()
        rates = raced({"ours": lambda q: shop.search(q, K), "stock": stock}, queries, count)
        ours, theirs = rates["ours"], rates["stock"]
        times = ours / theirs
        yield f"{count:4} queries   collection {ours:7.0f} q/s  IndexFlatIP {theirs:6.0f}  {times:5.1f} times"


def filtered(shop: Collection, queries: np.ndarray) -> Iterator[str]:
    """The first search with a filter reads attributes; until the next write the same filter is remembered."""
    for name, slots in SHARES.items():
        ask = Ask(K, f"slot < {slots}")
        begin = time.process_time()
        found = shop.ask(queries[:1], ask)
        first = time.process_time() - begin
        rate = raced({"": lambda q, a=ask: shop.ask(q, a)}, queries[:32], 1)[""]  # type: ignore[misc]
        reached = recall(shop, queries, ask.where)
        yield (
            f"{name:>7} fit   recall {reached:.4f}   {rate:6.0f} q/s   first {first * 1e3:6.1f} ms   "
            f"{len(found.hits[0])} hits   {found.account.plan}"
        )


@contextmanager
def _serving(data: Path) -> Iterator[tuple[Client, int]]:
    with tempfile.TemporaryDirectory() as folder:
        target = f"unix:{folder}/socket"
        command = [sys.executable, "-m", "lookalike_server", "--data", str(data), "--address", target]
        with subprocess.Popen(command) as server:
            try:
                with Client(target) as client:
                    _until_it_answers(client, server)
                    yield client, server.pid
            finally:
                server.terminate()


def _until_it_answers(client: Client, server: subprocess.Popen[bytes]) -> None:
    """Waits until the server is there and its index loaded."""
    while server.poll() is None:
        time.sleep(0.5)
        try:
            info = client.collection(NAME).info()
        except Exception:
            continue
        index = info.index
        if index is not None and (index.indexed_count or index.kind == "exact") and not index.building:
            return
    raise RuntimeError("the server ended before it answered")


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def over_grpc(data: Path, queries: np.ndarray) -> Iterator[str]:
    """One client, one call after another. No other process may have the data directory open."""
    with _serving(data) as (client, pid):
        shop = client.collection(NAME)
        for together in (1, 64):
            calls = [list(queries[i : i + together]) for i in range(0, len(queries), together)]
            walls, cpus = [], []
            for _ in range(3):
                wall, cpu = time.perf_counter(), _cpu(pid)
                for call in calls:
                    shop.search(vector=call, k=K)
                walls.append(time.perf_counter() - wall)
                cpus.append(_cpu(pid) - cpu)
            yield (
                f"calls of {together:2}   {len(queries) / min(walls):6.0f} queries/s   "
                f"{len(queries) / min(cpus):6.0f} a CPU second of the server"
            )
