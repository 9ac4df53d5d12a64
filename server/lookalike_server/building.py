"""Making approximate indexes: which kind, how to build it, how far to search, and how good it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lookalike_server.approximate import Approximate, Effort, parameters
from lookalike_server.errors import ArgumentInvalid
from lookalike_server.parts import Keys, Vectors

# Below this an exact scan answers in a few milliseconds.
EXACT_BELOW = 50_000
TARGET_RECALL = 0.98
_GRAPH_BELOW = 1_000_000
_STORAGES = ("fp16", "int8", "pq")
_TRAINING = 100_000
_SLICE = 5_000
_SAMPLE = 100
_K = 10
_WIDTHS = (8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class IndexSettings:
    """What index a collection should have.

    Args:
        kind: "auto", "exact", or a factory string of FAISS, as "HNSW32,SQ8" or "IVF4096,PQ64x4fs".
        target_recall: share of the true nearest that searches should find; 0 means 0.98.
        storage: of "auto": "fp16", "int8" or "pq"; "" means fp16.

    Raises ArgumentInvalid.
    """

    kind: str = "auto"
    target_recall: float = TARGET_RECALL
    storage: str = ""

    def __post_init__(self) -> None:
        if not 0.5 <= self.target_recall <= 1:
            raise ArgumentInvalid(
                f"target_recall is {self.target_recall}; use 0.5 to 1.", field="index.target_recall"
            )
        if self.storage and self.storage not in _STORAGES:
            raise ArgumentInvalid(
                f"storage is {self.storage!r}; use {', '.join(_STORAGES)}.", field="index.storage"
            )

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    def factory(self, count: int, dimension: int) -> str:
        """Returns FAISS's factory string for so many items; "" for an exact scan. Raises ArgumentInvalid."""
        if self.kind not in ("auto", "exact"):
            return checked(self.kind, dimension)
        if self.kind == "exact" or count < EXACT_BELOW:
            return ""
        lists = 1 << round(np.log2(4 * np.sqrt(count)))
        if self.storage == "pq":
            return f"IVF{lists},PQ{_quarter(dimension)}x4fs"
        suffix = {"int8": "SQ8"}.get(self.storage, "SQfp16")
        return f"HNSW16,{suffix}" if count < _GRAPH_BELOW else f"IVF{lists},{suffix}"


def _quarter(dimension: int) -> int:
    """The number of parts of a product quantiser, of four elements each where that divides."""
    return next(m for m in range(max(1, dimension // 4), 0, -1) if dimension % m == 0)


def checked(factory: str, dimension: int) -> str:
    """Returns the factory string when FAISS can make it and we can search it. Raises ArgumentInvalid."""
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError:
        raise ArgumentInvalid(
            f"index.kind {factory!r} is no factory string that FAISS knows for {dimension} dimensions; "
            "use auto, exact, or one like HNSW16,SQfp16 or IVF4096,SQ8.",
            field="index.kind",
        ) from None
    if not isinstance(index, faiss.IndexHNSW | faiss.IndexIVF | faiss.IndexFlatCodes):
        raise ArgumentInvalid(
            f"index.kind {factory!r}: only graphs (HNSW), lists (IVF) and flat codes are searched here, "
            "without transforms before them; hits are refined from full descriptors in any case.",
            field="index.kind",
        )
    return factory


class Stopped(Exception):
    """The build is no longer wanted."""


def build(
    keys: Keys, vectors: Vectors, factory: str, target: float, stopped: Callable[[], bool]
) -> Approximate:
    """Builds an index, tunes its effort to the target and measures the recall it then has.

    Args:
        keys: int64 [n].
        vectors: float32 [n, d], of length 1.

    Raises Stopped.
    """
    order, starts = _copies_together(vectors)
    distinct = np.ascontiguousarray(vectors[order[starts[:-1]]])
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    chance = np.random.default_rng(0)
    index.train(distinct[np.sort(chance.permutation(len(distinct))[:_TRAINING])])
    for start in range(0, len(distinct), _SLICE):
        if stopped():
            raise Stopped
        index.add(distinct[start : start + _SLICE])
    effort, recall = _tuned(index, distinct, target, chance, stopped)
    memory = size_of(index) + keys.nbytes + starts.nbytes
    return Approximate(index, keys[order], starts, factory, effort, recall, target, memory)


def _copies_together(vectors: Vectors) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Returns an order in which equal rows stand together, and where each run of equals begins, [r + 1]."""
    rows = np.ascontiguousarray(vectors).view(f"V{vectors.shape[1] * 4}").ravel()
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    groups = first[inverse]  # each row's run is named after its first row, so that runs keep their order
    order = np.argsort(groups, kind="stable")
    begins = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return order, np.append(begins, len(rows)).astype(np.int64)


def _tuned(
    index: faiss.Index,
    vectors: Vectors,
    target: float,
    chance: np.random.Generator,
    stopped: Callable[[], bool],
) -> tuple[Effort, float]:
    """Finds the least effort that reaches the target on one sample, and its recall on another."""
    sample = np.sort(chance.permutation(len(vectors))[: 2 * _SAMPLE])
    queries = vectors[sample]
    truth, _ = faiss.knn(queries, vectors, _K + 1, metric=faiss.METRIC_INNER_PRODUCT)
    halves = np.arange(len(sample)) % 2 == 0
    effort = Effort(_WIDTHS[-1])
    for effort in _efforts(index):
        if stopped():
            raise Stopped
        if _recall(index, vectors, queries[halves], truth[halves], effort) >= target:
            break
    return effort, _recall(index, vectors, queries[~halves], truth[~halves], effort)


def _efforts(index: faiss.Index) -> list[Effort]:
    """From little to much."""
    coarse = index.sa_code_size() < index.d if isinstance(index, faiss.IndexIVF) else False
    refines = (4, 16, 64) if coarse else (1,)
    if isinstance(index, faiss.IndexIVF):
        widths = [width for width in (1, 2, 4, *_WIDTHS) if width <= index.nlist]
    else:
        widths = list(_WIDTHS) if isinstance(index, faiss.IndexHNSW) else [1]
    return [Effort(width, refine) for width in widths for refine in refines]


def _recall(index: faiss.Index, vectors: Vectors, queries: Vectors, truth: Vectors, effort: Effort) -> float:
    """The share of the ten nearest, the query itself left out, that are found; ties count by score."""
    _, rows = index.search(queries, (_K + 1) * effort.refine + 8, params=parameters(index, effort))
    found = 0
    for query, proposed, best in zip(queries, rows, truth, strict=True):
        scores = vectors[proposed[proposed >= 0]] @ query
        found += min(_K, int((scores >= best[-1] - 1e-5).sum()) - 1)
    return max(0, found) / (_K * len(queries)) if len(queries) else 1.0


def size_of(index: faiss.Index) -> int:
    """About how many bytes an index takes in memory."""
    return estimated(index, index.ntotal)


def estimated(index: Any, count: int) -> int:
    """About how many bytes an index of this kind takes for so many rows."""
    if isinstance(index, faiss.IndexHNSW):
        graph: Any = index.hnsw
        links = 4 * (graph.nb_neighbors(0) + graph.nb_neighbors(1) / 15) + 12
        return int(count * (index.storage.sa_code_size() + links))
    if isinstance(index, faiss.IndexIVF):
        return int(count * (index.code_size + 8) + index.nlist * index.d * 4)
    return int(count * index.sa_code_size())
