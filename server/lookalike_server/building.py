"""Making approximate indexes: which kind, how to build it, how far to search, and how good it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lookalike_server.approximate import Approximate, Effort
from lookalike_server.errors import ArgumentInvalid
from lookalike_server.huge_pages import use_huge_pages
from lookalike_server.living import Living
from lookalike_server.parts import Part, Vectors
from lookalike_server.runs import NO_RUNS, Runs
from lookalike_server.scan import nearest

_faiss: Any = faiss  # its types leave out what its Python part adds

# Below this an exact scan answers in a few milliseconds.
EXACT_BELOW = 50_000
TARGET_RECALL = 0.98
# How far an index may fall short of its target.
TOLERANCE = 0.01
_GRAPH_BELOW = 2_000_000
_STORAGES = ("fp16", "int8", "pq")
_TRAINING = 100_000
_SAMPLE = 500
# Candidates for each new row's neighbours. With FAISS's own 40 a graph of 100,000 has a recall of .976 at an
# effort of 256; with these .98 at 64.
_CARE = 128
_K = 10
_LAST = 2**63 - 1
_WIDTHS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 72, 80, 88, 96, 112, 128, 160, 192, 256, 384, 512)


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
    parts: Sequence[Part],
    factory: str,
    target: float,
    stopped: Callable[[], bool],
    base: Approximate | None = None,
) -> Approximate:
    """Builds an index, tunes its effort to the target and measures the recall it then has.

    Some rows are left out until that is done, and are what is searched for: rows that are in a graph are
    found more easily than others.

    Args:
        parts: their living rows will be in it, by ascending keys.
        base: an index of the first of those rows, to which the others are added; it stays as it is.

    Raises Stopped.
    """
    rows = Living([part.between(0 if base is None else base.last + 1, _LAST) for part in parts])
    runs = rows.copies_together()
    shuffled = np.random.default_rng(0).permutation(len(runs))
    held, rest = np.split(shuffled, [min(_SAMPLE, len(runs) // 2)])
    sample = rows.vectors(np.sort(runs.chosen(rest[:_TRAINING]).firsts))
    index = _begun(sample, factory, target) if base is None else _copied(base)
    index = _grown(index, rows, runs.chosen(np.sort(rest)), stopped)
    late = runs.chosen(np.sort(held))
    asked = np.sort(rows.keys[late.members])
    shown = [part.without(asked) for part in parts]
    index = _grown(_tuned(index, shown, rows.vectors(late.firsts), stopped), rows, late, stopped)
    use_huge_pages(index.index)
    return index


def _begun(sample: Vectors, factory: str, target: float) -> Approximate:
    """An index without rows, trained with descriptors float32 [n, d]."""
    index = faiss.index_factory(sample.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if isinstance(index, faiss.IndexHNSW):
        graph: Any = index.hnsw
        graph.efConstruction = _CARE
    index.train(sample)
    return Approximate(index, NO_RUNS, factory, Effort(1), 0.0, target)


def _copied(base: Approximate) -> Approximate:
    return replace(base, index=_faiss.clone_index(base.index), _selections={})


def _grown(index: Approximate, rows: Living, runs: Runs, stopped: Callable[[], bool]) -> Approximate:
    """Adds runs of rows to an index that nobody searches yet."""
    for vectors in rows.slices(runs.firsts):
        if stopped():
            raise Stopped
        index.index.add(vectors)
    return replace(index, runs=index.runs.followed_by(Runs(rows.keys[runs.members], runs.starts)))


def _tuned(
    index: Approximate, parts: Sequence[Part], queries: Vectors, stopped: Callable[[], bool]
) -> Approximate:
    """Finds the least effort whose recall exceeds the target by what chance may add, its standard error.

    parts: their living rows are those in the index.
    """
    if not len(queries):  # all rows are copies of one
        return replace(index, recall=1.0)
    rows = Living(parts)
    exact = nearest([(part, part.alive) for part in parts], queries, _K)
    truth = np.array([np.sort(one.scores)[-_K:][0] if len(one.scores) else -2 for one in exact], np.float32)
    for effort in _efforts(index.index):
        if stopped():
            raise Stopped
        index = replace(index, effort=effort)
        shares = _shares(index, rows, queries, truth)
        index = replace(index, recall=float(shares.mean()))
        if index.recall - shares.std() / np.sqrt(len(shares)) >= index.target:
            break
    return index


def _efforts(index: faiss.Index) -> list[Effort]:
    """From little to much."""
    coarse = index.sa_code_size() < index.d if isinstance(index, faiss.IndexIVF) else False
    refines = (4, 16, 64) if coarse else (1,)
    if isinstance(index, faiss.IndexIVF):
        widths = [width for width in (1, 2, 4, *_WIDTHS) if width <= index.nlist]
    else:
        widths = list(_WIDTHS) if isinstance(index, faiss.IndexHNSW) else [1]
    return [Effort(width, refine) for width in widths for refine in refines]


def _shares(
    index: Approximate, rows: Living, queries: Vectors, truth: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The share of the ten nearest that each query finds; ties count by score.

    truth: the score of the last of them for each query.
    """
    proposed = index.proposals(queries, _K, None)
    places = np.minimum(np.searchsorted(rows.keys, proposed), len(rows) - 1)
    alive = rows.keys[places] == proposed
    owners, places = np.nonzero(alive)[0], places[alive]
    scores = np.einsum("nd,nd->n", rows.vectors(places), queries[owners])
    good = np.bincount(owners, scores >= truth[owners] - 1e-5, len(queries))
    return np.minimum(good, _K) / max(1, min(_K, len(rows)))
