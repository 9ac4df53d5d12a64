"""Indexes in large pages of memory.

A search of a graph jumps through all of it, as do proposals that are scored again. With pages of 4 KiB the
processor looks up the address of nearly each row in memory first; with pages of 2 MiB hardly ever.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from typing import Any

import faiss

from lookalike_server.structure import core, refined

_faiss: Any = faiss  # its types leave out what its Python part adds
_COLLAPSE = 25  # MADV_COLLAPSE, of Linux 6.1
_HUGE = 1 << 21


def use_huge_pages(index: Any) -> None:
    """Asks Linux to hold rows that are jumped to, and a graph's links, in large pages; elsewhere nothing."""
    if not sys.platform.startswith("linux"):
        return
    for vector in _jumped_to(index):
        if vector.size():
            memory = _faiss.rev_swig_ptr(vector.data(), vector.size())
            _collapse(memory.ctypes.data, memory.nbytes)


def _jumped_to(index: Any) -> Iterator[Any]:
    if refined(index):
        yield _faiss.downcast_index(index.refine_index).codes
    graph = core(index)
    if isinstance(graph, faiss.IndexHNSW):
        yield _faiss.downcast_index(graph.storage).codes
        links: Any = graph.hnsw
        yield links.neighbors


def _collapse(address: int, size: int) -> None:
    begin, end = -(-address // _HUGE) * _HUGE, (address + size) // _HUGE * _HUGE
    if begin < end:  # where it fails all stays as it was
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _COLLAPSE)
