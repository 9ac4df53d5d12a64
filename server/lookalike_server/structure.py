"""What FAISS's indexes are made of: how they are searched, and what they take.

Refine(..)     scores the proposals of what is before it again, from better copies of the descriptors
PCAR192,..     turns descriptors, and takes fewer dimensions, before what is behind it sees them
core           a graph (HNSW), lists (IVF), or flat codes
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import faiss

_faiss: Any = faiss  # its types leave out what its Python part adds


@dataclass(frozen=True)
class Effort:
    """How far a search goes: `width` is efSearch or nprobe, `refine` the number of proposals for each hit."""

    width: int
    refine: int = 1

    def __str__(self) -> str:
        return str(self.width) if self.refine == 1 else f"{self.width} with {self.refine} proposals for a hit"


def refined(index: Any) -> bool:
    """Whether FAISS itself scores proposals again."""
    return isinstance(index, faiss.IndexRefine)


def beneath(index: Any) -> Any:
    """Returns what a refinement or a transform stands before, or None."""
    if isinstance(index, faiss.IndexRefine):
        return _faiss.downcast_index(index.base_index)
    if isinstance(index, faiss.IndexPreTransform):
        return _faiss.downcast_index(index.index)
    return None


def core(index: Any) -> Any:
    """Returns the graph, the lists or the flat codes that find proposals."""
    inner = beneath(index)
    return index if inner is None else core(inner)


def transforms(index: Any) -> Iterator[Any]:
    """Yields what descriptors go through on their way to the core."""
    if isinstance(index, faiss.IndexPreTransform):
        chain: Any = index.chain
        for i in range(chain.size()):
            yield _faiss.downcast_VectorTransform(chain.at(i))
    inner = beneath(index)
    if inner is not None:
        yield from transforms(inner)


def code_size(index: Any) -> int:
    """Bytes of a descriptor as the core holds it."""
    found = core(index)
    return int((found.storage if isinstance(found, faiss.IndexHNSW) else found).sa_code_size())


def parameters(index: Any, effort: Effort, selector: Any = None) -> Any:
    """Search effort as an argument: a field of the index would be shared by all who search."""
    options = {} if selector is None else {"sel": selector}
    inner = beneath(index)
    if inner is not None:
        further = parameters(inner, effort, selector)
        if refined(index):
            return _faiss.IndexRefineSearchParameters(k_factor=effort.refine, base_index_params=further)
        return _faiss.SearchParametersPreTransform(index_params=further)
    if isinstance(index, faiss.IndexHNSW):
        return _faiss.SearchParametersHNSW(efSearch=effort.width, **options)
    if isinstance(index, faiss.IndexIVF):
        return _faiss.SearchParametersIVF(nprobe=min(effort.width, index.nlist), **options)
    return _faiss.SearchParameters(**options)


def estimated(index: Any, count: int) -> int:
    """About how many bytes an index of this kind takes for so many rows."""
    inner: Any = beneath(index)
    if refined(index):
        return estimated(inner, count) + count * int(index.refine_index.sa_code_size())
    if inner is not None:
        return estimated(inner, count) + sum(4 * int(one.d_in * one.d_out) for one in transforms(index))
    if isinstance(index, faiss.IndexHNSW):
        graph: Any = index.hnsw
        links = 4 * (graph.nb_neighbors(0) + graph.nb_neighbors(1) / 15) + 12
        return int(count * (index.storage.sa_code_size() + links))
    if isinstance(index, faiss.IndexIVF):
        return int(count * (index.code_size + 8) + index.nlist * index.d * 4)
    return int(count * index.sa_code_size())
