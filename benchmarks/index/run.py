"""Measures a collection: approximate searches beside FAISS, hnswlib and usearch, exact ones beside FAISS's,
filters, durable writes, opening, and recall after half of the items were replaced.

    pip install hnswlib usearch                                  optional; what is not there is left out
    python benchmarks/index/run.py                               100,000 items like those of images
    python benchmarks/index/run.py --vectors FILE.npy            descriptors of your own, [n, d]
    python benchmarks/index/run.py build --items 1000000 --keep DIR      makes what takes long, in all cores
    python benchmarks/index/run.py search exact --items 1000000 --keep DIR
    python benchmarks/index/run.py writes open --items 1000000 --keep DIR --index exact    without an index

With --keep what was built stays in the folder, for the next run of the same items. Searches have one thread.
Rates are queries a second of CPU time, the best of rounds in which all take turns: other work on the machine
disturbs them little. Items are clustered, with few strong directions and many weak ones; on Gaussian noise
every method looks alike.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import faiss
from data import Data, collection_of, made, read
from lookalike_server.catalog import Catalog
from peers import PEERS, peers
from searches import approximate, exact, filtered, over_grpc
from writes import durable, opening, replaced

PARTS = ("build", "search", "exact", "filters", "writes", "open", "grpc", "replaced")


def tell(title: str, lines: object) -> None:
    print(f"\n{title}")
    for line in lines:  # type: ignore[attr-defined]
        print(f"  {line}")


def measure(root: Path, parts: list[str], data: Data, kind: str, beside: list[str]) -> None:
    faiss.omp_set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    store = root / "data"
    with Catalog(store) as catalog:
        shop = collection_of(catalog, data.items, kind)
        others = list(peers(root / "peers", data.items, beside)) if {"build", "search"} & {*parts} else []
        if "search" in parts and kind != "exact":
            tell("approximate searches, k = 10", approximate(shop, others, data.queries))
        if "exact" in parts:
            tell("exact searches, k = 10", exact(shop, data.items))
        if "filters" in parts:
            tell("searches with a filter", filtered(shop, data.queries))
        if "writes" in parts:
            tell("durable writes of one item", durable(shop))
    if "open" in parts:
        tell("opening", opening(store, data.queries))
    if "grpc" in parts:
        tell("over gRPC, one client", over_grpc(store, data.queries))
    if "replaced" in parts:
        with tempfile.TemporaryDirectory(dir=root) as folder:
            tell("replacing", replaced(store, Path(folder), data.items, data.queries))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all of them unless told otherwise")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--vectors", type=Path, metavar="FILE.npy")
    parser.add_argument("--index", metavar="KIND", default="auto", help="auto, exact, or a factory string")
    parser.add_argument("--peers", metavar="NAMES", default=",".join(PEERS), help="those to search beside")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # each part as it is measured
    data = read(options.vectors) if options.vectors else made(options.items, options.dimension)
    with tempfile.TemporaryDirectory() as folder:
        root = options.keep or Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        measure(root, options.parts or list(PARTS), data, options.index, options.peers.split(","))


if __name__ == "__main__":
    main()
