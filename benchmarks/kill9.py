"""Kills a process while it writes, again and again, and looks whether anything it acknowledged is gone.

    python benchmarks/kill9.py --rounds 50

Each round a child process writes with several threads until it is killed with SIGKILL at a random moment:
batches of new items, new versions of items that are there, deletions. It reports each acknowledgement through
a pipe. Then the collection is opened again, and every acknowledged change must be there, every other one
whole or not at all. Prints the figures as JSON and ends with 1 when a round found a fault.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from lookalike_extractor.recipe import Space
from lookalike_server import view
from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.rows import NewRow, Row

SPACE = Space(id="kill9", dimension=256, recipe="kill9")
WRITERS = 4
BATCH = 20
Ack = tuple[int, int, int]  # round, writer, step


def descriptor_of(item_id: str, version: int) -> np.ndarray:
    seed = hashlib.sha256(f"{item_id} {version}".encode()).digest()
    vector = np.random.default_rng(list(seed)).standard_normal(SPACE.dimension)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def made(item_id: str, version: int) -> NewRow:
    attributes = json.dumps({"version": version, "filler": item_id * 20})
    return NewRow(
        item_id, descriptor_of(item_id, version), attributes, hashlib.sha256(attributes.encode()).digest()
    )


def whole(row: Row) -> bool:
    """All parts of the item are of one version."""
    expected = made(row.id, json.loads(row.attributes_json)["version"])
    return (
        row.attributes_json == expected.attributes_json
        and row.digest == expected.digest
        and np.array_equal(row.descriptor, expected.descriptor)
    )


def batch_ids(turn: int, writer: int, step: int) -> list[str]:
    return [f"new-{turn}-{writer}-{step}-{i}" for i in range(BATCH)]


def write(collection: Collection, turn: int, writer: int, pipe: int) -> None:
    """Each step writes a batch, moves the writer's own items on, and deletes half of an older batch."""
    step = 0
    while True:
        moved = [made(f"moving-{writer}-{i}", turn * 1_000_000 + step) for i in range(3)]
        collection.upsert([made(i, 0) for i in batch_ids(turn, writer, step)] + moved)
        if step >= 2:
            collection.delete(batch_ids(turn, writer, step - 2)[: BATCH // 2])
        os.write(pipe, f"{turn} {writer} {step}\n".encode())
        step += 1


def child(root: Path, turn: int, pipe: int) -> None:
    with Catalog(root) as catalog:
        threads = [
            threading.Thread(target=write, args=(catalog.get("shop"), turn, writer, pipe))
            for writer in range(WRITERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def killed_round(root: Path, turn: int, seconds: float) -> dict[int, int]:
    """Returns the last step that each writer acknowledged before it was killed."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        child(root, turn, writing)
        os._exit(0)
    os.close(writing)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    with os.fdopen(reading) as lines:
        acks = [tuple(map(int, line.split())) for line in lines if line.endswith("\n")]
    return {writer: step for _, writer, step in acks}


def faults_of(collection: Collection, turn: int, last: dict[int, int]) -> Counter[str]:
    """Counts what is not as it was acknowledged."""
    faults: Counter[str] = Counter()
    for writer, acknowledged in last.items():
        for step in range(acknowledged + 4):
            found = collection.get(batch_ids(turn, writer, step), descriptors=True)
            kept = set(batch_ids(turn, writer, step)[BATCH // 2 :])
            if step <= acknowledged and not kept <= found.keys():
                faults["lost"] += len(kept - found.keys())
            if step <= acknowledged - 2 and len(found) != BATCH // 2:
                faults["deleted but there"] += 1
            if len(found) not in (0, BATCH // 2, BATCH):
                faults["half a batch"] += 1
            faults["half an item"] += sum(not whole(row) for row in found.values())
        moving = [f"moving-{writer}-{i}" for i in range(3)]
        rows = collection.get(moving, descriptors=True)
        versions = {json.loads(row.attributes_json)["version"] for row in rows.values()}
        if len(rows) != 3 or len(versions) != 1 or min(versions) < turn * 1_000_000 + acknowledged:
            faults["moved items"] += 1
        faults["half an item"] += sum(not whole(row) for row in rows.values())
    listed = collection.list(0, -1)
    snapshot = collection.snapshot()
    if not (len(listed) == len({row.id for row in listed}) == collection.count == len(snapshot.ids)):
        faults["counts"] += 1
    return +faults


def run(root: Path, rounds: int) -> dict[str, object]:
    view.PART_ROWS = 256  # so that segments are being written when the process is killed
    with Catalog(root) as catalog:
        catalog.create("shop", SPACE)
    faults: Counter[str] = Counter()
    acknowledged, slowest = 0, 0.0
    for turn in range(rounds):
        last = killed_round(root, turn, random.uniform(0.1, 0.8))
        begin = time.perf_counter()
        with Catalog(root) as catalog:
            slowest = max(slowest, time.perf_counter() - begin)
            faults += faults_of(catalog.get("shop"), turn, last)
            items = catalog.get("shop").count
        acknowledged += sum(step + 1 for step in last.values()) * (BATCH + 3)
    return {
        "rounds": rounds,
        "acknowledged_upserts": acknowledged,
        "items": items,
        "slowest_open_s": round(slowest, 3),
        "faults": dict(faults),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50)
    with tempfile.TemporaryDirectory() as folder:
        figures = run(Path(folder), parser.parse_args().rounds)
    print(json.dumps(figures, indent=2))
    return 1 if figures["faults"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
