"""Graphs in large pages of memory.

A search of a graph jumps through all of it. With pages of 4 KiB the processor looks up the address of nearly
each row in memory first; with pages of 2 MiB hardly ever.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import faiss

_faiss: Any = faiss  # its types leave out what its Python part adds
_COLLAPSE = 25  # MADV_COLLAPSE, of Linux 6.1
_HUGE = 1 << 21


def use_huge_pages(index: Any) -> None:
    """Asks Linux to hold a graph's rows and links in large pages; does nothing elsewhere."""
    if not isinstance(index, faiss.IndexHNSW) or not sys.platform.startswith("linux"):
        return
    graph: Any = index.hnsw
    for vector in (_faiss.downcast_index(index.storage).codes, graph.neighbors):
        if vector.size():
            memory = _faiss.rev_swig_ptr(vector.data(), vector.size())
            _collapse(memory.ctypes.data, memory.nbytes)


def _collapse(address: int, size: int) -> None:
    begin, end = -(-address // _HUGE) * _HUGE, (address + size) // _HUGE * _HUGE
    if begin < end:  # where it fails all stays as it was
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _COLLAPSE)
