"""Making approximate indexes: which kind, how to build it, how far to search, and how good it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import faiss
import numpy as np

from lookalike_server.approximate import Approximate
from lookalike_server.errors import ArgumentInvalid
from lookalike_server.huge_pages import use_huge_pages
from lookalike_server.living import Living
from lookalike_server.parts import Part, Vectors
from lookalike_server.runs import NO_RUNS, Runs
from lookalike_server.structure import Effort, core, transforms
from lookalike_server.tuning import tuned

_faiss: Any = faiss  # its types leave out what its Python part adds

# Below this an exact scan answers in a few milliseconds.
EXACT_BELOW = 50_000
TARGET_RECALL = 0.98
# How far an index may fall short of its target.
TOLERANCE = 0.01
_GRAPH_BELOW = 2_000_000
# How descriptors are held that score the proposals of lists again; those of "pq" have none.
_STORAGES = {"fp16": "SQfp16", "int8": "SQ8", "pq": ""}
_TRAINING = 100_000
_TURNING = 25_000  # of those, for rotations
# The greatest numbers in a factory string: all, links, bits of a code.
_MOST = {r"\d+": 1 << 18, r"HNSW(\d+)": 512, r"x(\d+)": 16}
# FAISS refuses to train lists and codes with less; equal descriptors do no harm.
_LEAST_TRAINING = 1_000
_SAMPLE = 500
# Candidates for each new row's neighbours. With FAISS's own 40 a graph of 100,000 has a recall of .976 at an
# effort of 256; with these .98 at 64.
_CARE = 128
_LAST = 2**63 - 1
# Dimensions that lists keep: of descriptors of images the first 192 principal ones hold nearly all.
_KEPT = 192


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

    def factory(self, count: int, dimension: int, *, rows: int = 0, second: bool = False) -> str:
        """Returns FAISS's factory string for so many items; "" for an exact scan. Raises ArgumentInvalid.

        Args:
            rows: of the index, where it has only some of the items.
            second: what "auto" makes where the first choice does not reach the target.
        """
        if self.kind not in ("auto", "exact"):
            return "" if second else checked(self.kind, dimension)
        if self.kind == "exact" or count < EXACT_BELOW:
            return ""
        full = _STORAGES[self.storage or "fp16"]
        lists, kept = 1 << round(np.log2(1.5 * np.sqrt(rows or count))), min(dimension, _KEPT)
        if second:
            return full and (f"HNSW16,{full}" if count < _GRAPH_BELOW else f"IVF{2 * lists},{full}")
        return f"PCAR{kept},IVF{lists},PQ{kept}x4fsr" + (full and f",Refine({full})")


def checked(factory: str, dimension: int) -> str:
    """Returns the factory string when FAISS can make it and we can search it. Raises ArgumentInvalid."""
    for part, most in _MOST.items():
        # FAISS takes any number at its word, and memory for it.
        if any(len(number) > 9 or int(number) > most for number in re.findall(part, factory)):
            raise ArgumentInvalid(
                f"index.kind {factory!r}: use at most {1 << 18} lists, 512 links and 16 bits a code.",
                field="index.kind",
            )
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError:
        raise ArgumentInvalid(
            f"index.kind {factory!r} is no factory string that FAISS knows for {dimension} dimensions; "
            "use auto, exact, or one like HNSW16,SQfp16 or IVF4096,SQ8.",
            field="index.kind",
        ) from None
    linear = all(isinstance(one, faiss.LinearTransform) for one in transforms(index))
    if not linear or not isinstance(core(index), faiss.IndexHNSW | faiss.IndexIVF | faiss.IndexFlatCodes):
        raise ArgumentInvalid(
            f"index.kind {factory!r}: only graphs (HNSW), lists (IVF) and flat codes are searched here, with "
            "nothing but rotations (PCA, OPQ, RR) before them and Refine(..) behind.",
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

    def check() -> None:
        if stopped():
            raise Stopped

    rows = Living([part.between(0 if base is None else base.last + 1, _LAST) for part in parts])
    runs = rows.copies_together()
    shuffled = np.random.default_rng(0).permutation(len(runs))
    held, rest = np.split(shuffled, [min(_SAMPLE, len(runs) // 2)])
    sample = rows.vectors(np.sort(runs.chosen(rest[:_TRAINING]).firsts))
    index = _begun(sample, factory, target) if base is None else _copied(base)
    index = _grown(index, rows, runs.chosen(np.sort(rest)), check)
    late = runs.chosen(np.sort(held))
    asked = np.sort(rows.keys[late.members])
    shown = [part.without(asked) for part in parts]
    index = tuned(index, shown, rows.vectors(late.firsts), check)
    index = _grown(index, rows, late, check)
    use_huge_pages(index.index)
    return index


def _begun(sample: Vectors, factory: str, target: float) -> Approximate:
    """An index without rows, trained with descriptors float32 [n, d]."""
    index = faiss.index_factory(sample.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if isinstance(core(index), faiss.IndexHNSW):
        core(index).hnsw.efConstruction = _CARE
    if isinstance(core(index), faiss.IndexIVF):
        core(index).cp.min_points_per_centroid = 1  # fewer than usual are no reason to complain
        sample = np.resize(sample, (max(len(sample), core(index).nlist, _LEAST_TRAINING), sample.shape[1]))
    for transform in transforms(index):
        # PCA takes off the mean, which would change inner products: of both signs together it is zero.
        some = sample[:: -(-len(sample) // _TURNING)]
        transform.train(np.concatenate([some, -some]))
    index.train(sample)
    return Approximate(index, NO_RUNS, factory, Effort(1), 0.0, target)


def _copied(base: Approximate) -> Approximate:
    return replace(base, index=_faiss.clone_index(base.index), _selections={})


def _grown(index: Approximate, rows: Living, runs: Runs, check: Callable[[], None]) -> Approximate:
    """Adds runs of rows to an index that nobody searches yet."""
    for vectors in rows.slices(runs.firsts):
        check()
        index.index.add(vectors)
    return replace(index, runs=index.runs.followed_by(Runs(rows.keys[runs.members], runs.starts)))
