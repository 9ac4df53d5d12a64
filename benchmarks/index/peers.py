"""Graphs of other libraries, each built with one thread or more, kept in a file, searched with one thread."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from data import K

EFFORTS = (16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256, 384, 512)


class Peer(ABC):
    name: str

    def __init__(self, path: Path, dimension: int) -> None:
        self.path, self.dimension, self.effort = path, dimension, 0

    @abstractmethod
    def build(self, items: np.ndarray) -> None:
        """Writes the index of the items float32 [n, d] to the path."""

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def search(self, queries: np.ndarray) -> np.ndarray:
        """Returns the numbers of about the ten nearest, [q, 10], with `effort`."""


class Faiss(Peer):
    name = "FAISS HNSW32"

    def build(self, items: np.ndarray) -> None:
        index = faiss.index_factory(self.dimension, "HNSW32", faiss.METRIC_INNER_PRODUCT)
        index.add(items)
        faiss.write_index(index, str(self.path))

    def open(self) -> None:
        self._index = faiss.read_index(str(self.path))

    def search(self, queries: np.ndarray) -> np.ndarray:
        faiss.omp_set_num_threads(1)
        return self._index.search(queries, K, params=faiss.SearchParametersHNSW(efSearch=self.effort))[1]


class Hnswlib(Peer):
    name = "hnswlib M=16"

    def build(self, items: np.ndarray) -> None:
        import hnswlib

        graph = hnswlib.Index("ip", self.dimension)
        graph.init_index(len(items), ef_construction=100, M=16)
        graph.add_items(items, num_threads=faiss.omp_get_max_threads())
        graph.save_index(str(self.path))

    def open(self) -> None:
        import hnswlib

        self._graph = hnswlib.Index("ip", self.dimension)
        self._graph.load_index(str(self.path))
        self._graph.set_num_threads(1)

    def search(self, queries: np.ndarray) -> np.ndarray:
        self._graph.set_ef(self.effort)
        return self._graph.knn_query(queries, K)[0].astype(np.int64)


class Usearch(Peer):
    name = "usearch f16"

    def build(self, items: np.ndarray) -> None:
        index = self._empty()
        index.add(np.arange(len(items)), items, threads=faiss.omp_get_max_threads())
        index.save(str(self.path))

    def open(self) -> None:
        self._index = self._empty()
        self._index.load(str(self.path))

    def search(self, queries: np.ndarray) -> np.ndarray:
        self._index.expansion_search = self.effort
        if len(queries) == 1:
            return self._index.search(queries[0], K).keys[None].astype(np.int64)
        return self._index.search(queries, K, threads=1).keys.astype(np.int64)

    def _empty(self) -> Any:
        from usearch.index import Index

        return Index(ndim=self.dimension, metric="ip", dtype="f16", connectivity=16)


PEERS = {"faiss": Faiss, "hnswlib": Hnswlib, "usearch": Usearch}


def peers(folder: Path, items: np.ndarray, names: Sequence[str]) -> Iterator[Peer]:
    """Yields those that are installed, opened; builds what is not in the folder."""
    folder.mkdir(exist_ok=True)
    for kind in (PEERS[name] for name in names):
        peer: Peer = kind(folder / f"{kind.__name__.lower()}.index", items.shape[1])
        try:
            if not peer.path.exists():
                begin = time.process_time()
                peer.build(items)
                print(f"{peer.name} built in {time.process_time() - begin:.0f} CPU s", flush=True)
            peer.open()
        except ImportError:
            print(f"{peer.name} is not installed and left out")
            continue
        yield peer
