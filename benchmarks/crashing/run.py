"""Ends a process at any of its file operations, thousands of times, and looks at what is left.

    python benchmarks/crashing/run.py --rounds 10000

A process works on a collection while each of its writes, syncs, renames and removals is recorded. Each round
takes the record up to a random operation and makes a disk of it, in one of three ways:

    killed    all that was done is there; the last write perhaps in part
    power     of what was not synced any part is there: some writes, some sectors, some names
    flipped   killed, and one bit of one file turned round

Then the collection is opened, compared with what was acknowledged, searched and verified. It must open; what
was acknowledged must be there and nothing else, or also the one call that was under way, whole: items, and
aliases. With a bit turned round it may say that it is damaged, but never answer wrong. A turned bit in
SQLite's log is counted apart: SQLite takes it for a torn write, and the log ends there.

Needs a C compiler. Prints the figures as JSON and ends with 1 when a round found a fault.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from disk import Disk, Operation, operations, write_out
from lookalike_extractor.errors import LookalikeError
from lookalike_server import reserve, view
from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.errors import CollectionUnknown, StoreDamaged
from lookalike_server.scan import exact_scores
from workload import ALIAS, PART_ROWS, SPACE, row, steps

HERE = Path(__file__).parent
WAYS = ("killed", "power", "flipped")
State = dict[str, int]
Left = dict[str, bytes | None]
"""What is on the disk: the bytes of each file, None for a folder."""


def recorder(folder: Path) -> Path:
    library = folder / "recorder.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "recorder.c", "-ldl", "-lpthread"], check=True
    )
    return library


def record_of(seed: int, folder: Path, library: Path) -> list[Operation]:
    """Lets a process do its work, and returns what it did to its files."""
    root, log = folder / f"work-{seed}", folder / f"log-{seed}"
    root.mkdir()
    environment = os.environ | {"LD_PRELOAD": str(library), "FAULT_ROOT": str(root), "FAULT_LOG": str(log)}
    subprocess.run([sys.executable, HERE / "workload.py", root, str(seed)], env=environment, check=True)
    return list(operations(log))


def crashes(
    record: Sequence[Operation], count: int, chance: random.Random
) -> Iterator[tuple[str, int, Left]]:
    """Yields how the process ended, how many calls it had acknowledged, and what is on the disk."""
    moments = Counter(chance.randrange(len(record)) for _ in range(count))
    disk, acknowledged = Disk(), 0
    for i, operation in enumerate(record):
        if operation.path == "acknowledged":
            acknowledged += operation.what == "w"
            continue
        for _ in range(moments[i]):
            way = chance.choice(WAYS)
            yield way, acknowledged, left_by(disk, operation, way, chance)
        disk.play(operation)


def left_by(disk: Disk, operation: Operation, way: str, chance: random.Random) -> Left:
    return disk.without_power(chance) if way == "power" else disk.killed(operation, chance)


def flip(state: Left, chance: random.Random) -> str:
    """Turns one bit round; returns the file's name."""
    name = chance.choice([name for name, content in state.items() if content] or [""])
    if name:
        content = bytearray(state[name] or b"")
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        state[name] = bytes(content)
    return name


def contents(shop: Collection) -> State:
    """What the collection says it holds: each item whole, read in every way there is."""
    snapshot = shop.snapshot()
    state = {}
    for item_id, descriptor, attributes in zip(
        snapshot.ids, snapshot.descriptors, snapshot.attributes_json, strict=True
    ):
        state[item_id] = json.loads(attributes)["version"]
        if not np.array_equal(row(item_id, state[item_id]).descriptor, descriptor):
            return {"half an item": -1}
    found = shop.get([str(i) for i in range(60)])
    got = {item_id: json.loads(item.attributes_json)["version"] for item_id, item in found.items()}
    return state if got == state and shop.count == len(state) else {"reads differ": -1}


def named(catalog: Catalog) -> State:
    catalog.aliases.check()
    aliases = catalog.aliases.of("shop")
    return {ALIAS: int(aliases[-1][-2:])} if aliases else {}


def filtered_right(shop: Collection, state: State) -> bool:
    """Through an index on the attribute."""
    least = sorted(state.values())[len(state) // 2] if state else 0
    expected = {item_id for item_id, version in state.items() if version >= least}
    return {item.id for item in shop.list(0, -1, f"version >= {least}")} == expected


def searched_right(shop: Collection, state: State, chance: random.Random) -> bool:
    query = np.array([chance.gauss(0, 1) for _ in range(SPACE.dimension)], np.float32)
    query /= np.linalg.norm(query)
    hits = shop.search(query[None], 5).hits[0]
    ids = sorted(state)
    scores = exact_scores(query, np.array([row(i, state[i]).descriptor for i in ids] or [query]))
    best = np.sort(scores[: len(ids)])[::-1][:5]
    return np.allclose([hit.score for hit in hits], best, atol=1e-6) and len(hits) == min(5, len(ids))


def fault_of(
    root: Path, states: Sequence[State], acknowledged: int, flipped: str, chance: random.Random
) -> str:
    """Returns what is wrong, "" when nothing is; words in brackets are allowed."""
    with Catalog(root / "data") as catalog:
        try:
            shop = catalog.get("shop")
            state = contents(shop)
            if state | named(catalog) not in states[max(0, acknowledged - 1) : acknowledged + 1]:
                return "(log ended early)" if flipped.endswith("-wal") else f"state {flipped}".strip()
            if not flipped and not filtered_right(shop, state):
                return "filter"
            if not searched_right(shop, state, chance):
                return "search"
            problems = [line for line in shop.verify().problems if not line.startswith("segment")]
            if problems:
                return "(damage told)" if flipped else problems[0]
            shop.upsert([row("0", 1_000)])
        except CollectionUnknown:
            return "" if not acknowledged else "(folder renamed)" if flipped else "collection gone"
        except StoreDamaged as error:
            return "(damage told)" if flipped else f"damaged: {error}"
    return ""


def outcome(
    root: Path, state: Left, flipped: str, states: Sequence[State], acknowledged: int, chance: random.Random
) -> str:
    """Puts the state on a real disk and tells what comes of it."""
    root.mkdir()
    write_out(state, root)
    try:
        return fault_of(root, states, acknowledged, flipped, chance)
    except (LookalikeError, AssertionError) as error:
        return f"(refused) {type(error).__name__}" if flipped else f"{type(error).__name__}: {error}"
    except Exception as error:  # nobody is told what is wrong
        return f"{type(error).__name__}: {error} {flipped}".strip()


def states_of(seed: int) -> list[State]:
    """The states after creation and after each step."""
    return [{}, *(step.state for step in steps(seed))]


def run(rounds: int, seed: int, per_record: int = 1000) -> dict[str, object]:
    logging.disable()
    view.PART_ROWS, reserve.RESERVE_BYTES = PART_ROWS, 4096
    begin, done, outcomes, ways = time.monotonic(), 0, Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name)
        library = recorder(folder)
        while done < rounds:
            chance = random.Random(seed)
            record, states = record_of(seed, folder, library), states_of(seed)
            for way, acknowledged, state in crashes(record, min(per_record, rounds - done), chance):
                flipped = flip(state, chance) if way == "flipped" else ""
                fault = outcome(folder / f"round-{done}", state, flipped, states, acknowledged, chance)
                shutil.rmtree(folder / f"round-{done}")
                outcomes[fault or "right"] += 1
                ways[way] += 1
                done += 1
            seed += 1
    faults = {what: n for what, n in outcomes.items() if what != "right" and not what.startswith("(")}
    return {
        "rounds": done,
        "ways": dict(ways),
        "outcomes": dict(outcomes),
        "faults": faults,
        "seconds": round(time.monotonic() - begin, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures = run(options.rounds, options.seed)
    print(json.dumps(figures, indent=2))
    return 1 if figures["faults"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
