"""Searches for duplicates that are killed at random moments and go on: do they end with the same bytes?

    python benchmarks/kill_duplicates.py [--rounds 20] [--items 60000] [--dimension 64]

One search runs undisturbed. Then, in each round, one like it is killed with SIGKILL at a random moment of
that time, and run again until it ends. A search that had ended by then does not count: it is begun anew and
another moment is drawn. Prints one JSON object: the rounds, how many shards the killed searches had made
already, and how many files differed from those of the undisturbed search in the end: none may.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from duplicates import image_like
from lookalike_server.answers import Snapshot
from lookalike_server.duplicates import Asked, Search
from lookalike_server.duplicates.shards import Folder

ASKED = Asked(0.9)


def search(folder: Path, items: int, dimension: int) -> None:
    descriptors, _ = image_like(items, dimension)

    def take() -> Snapshot:
        numbers = np.arange(1, items + 1)
        ids = [f"{number:08}" for number in range(items)]
        none = np.zeros(items, np.bool_)
        return Snapshot(items, numbers, ids, descriptors, [b""] * items, [""] * items, none)

    (folder / "begun").touch()
    Search(Folder(folder, {}), ASKED).run(take)
    (folder / "begun").unlink()


def content(folder: Path) -> dict[str, str]:
    files = (file for file in folder.iterdir() if not file.name.endswith(".tmp"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def new(root: str) -> Path:
    return Path(tempfile.mkdtemp(dir=root))


def begin(folder: Path, items: int, dimension: int) -> multiprocessing.process.BaseProcess:
    """Returns once the search itself has begun."""
    process = multiprocessing.get_context("spawn").Process(target=search, args=(folder, items, dimension))
    process.start()
    while process.is_alive() and not running(folder):
        time.sleep(0.005)
    return process


def running(folder: Path) -> bool:
    """Whether a search has begun there and not ended; a killed one has not."""
    return (folder / "begun").exists()


def undisturbed(folder: Path, items: int, dimension: int) -> float:
    """Runs a search to its end; returns its seconds."""
    process = begin(folder, items, dimension)
    started = time.monotonic()
    while process.is_alive() and running(folder):
        time.sleep(0.005)
    seconds = time.monotonic() - started
    process.join()
    return seconds


def killed(folder: Path, items: int, dimension: int, after: float) -> bool:
    """Kills a search so many seconds after its beginning; False when it had ended by then."""
    process = begin(folder, items, dimension)
    process.join(after)
    process.kill()
    process.join()
    return running(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--items", type=int, default=60_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    moments = random.Random(asked.seed)
    made, different, late = [], 0, 0
    with tempfile.TemporaryDirectory() as root:
        seconds = undisturbed(whole := new(root), asked.items, asked.dimension)
        expected = content(whole)
        while len(made) < asked.rounds:
            folder = new(root)
            if not killed(folder, asked.items, asked.dimension, moments.uniform(0, seconds)):
                late += 1
                continue
            made.append(len(list(folder.glob("*.parquet"))))
            undisturbed(folder, asked.items, asked.dimension)
            found = content(folder)
            different += sum(found.get(name) != expected.get(name) for name in found.keys() | expected.keys())
            shutil.rmtree(folder)
    line = {
        "rounds": asked.rounds,
        "seconds": round(seconds, 1),
        "shards": len(expected) - 1,
        "shards_made_before_the_kill": sorted(made),
        "ended_before_the_kill": late,
        "files_that_differ": different,
    }
    print(json.dumps(line))
    raise SystemExit(bool(different))


if __name__ == "__main__":
    main()
