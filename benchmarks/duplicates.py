"""How long a search for near-duplicates takes, in how much memory, and how many pairs it finds.

    python benchmarks/duplicates.py 10000 100000 1000000 [--dimension 512] [--imagededup PYTHON]

Descriptors are made: clumps of many sizes on few dimensions, as those of images are (on evenly spread noise
every index is bad, and nobody has such images), and planted pairs, a tenth of the items, at 0.90 to 1.00.
Each size runs in a process of its own. Prints one JSON object a line:

    seconds            of the whole search as a job runs it: with its shards on disk, synced, and its groups
    memory             peak resident memory, as a multiple of the descriptors' own bytes
    planted_found      share of the planted pairs at or over the threshold that the search connected
    planted_together   share of all planted pairs that are in one group: chains are taken apart
    recall             [found, pairs, low, high]: the search's own sample with its 95 % interval; null: exact
    exact_seconds      for comparing every pair, up to --exact-up-to items
    clustered_seconds  for the clustered search of pairs, for the same items
    edge_recall        share of all pairs that it found
    imagededup         with the Python of an environment that holds it: [seconds, share of all pairs] of its
                       search for the same descriptors, or why there is none
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from lookalike_server.answers import Snapshot
from lookalike_server.duplicates import Asked, Search
from lookalike_server.duplicates.candidates import Floats, Pairs, similar_pairs, verified_scores
from lookalike_server.duplicates.clusters import clustered_pairs
from lookalike_server.duplicates.groups import join, roots
from lookalike_server.duplicates.shards import Folder

LATENT = 48  # dimensions that the descriptors really have
PLANTED = 20  # every twentieth item has a copy


def image_like(count: int, dimension: int, seed: int = 0) -> tuple[Floats, np.ndarray]:
    """float32 [count, dimension] of length 1, and the planted pairs [p, 2]; made in blocks to stay small."""
    random = np.random.default_rng(seed)
    decay = 1 / np.sqrt(1 + np.arange(LATENT))
    clumps = random.normal(size=(max(20, count // 500), LATENT)) * decay
    basis = np.linalg.qr(random.normal(size=(dimension, LATENT)))[0].T.astype(np.float32)
    descriptors = np.empty((count, dimension), np.float32)
    for start in range(0, count, 50_000):
        rows = min(50_000, count - start)
        chosen = clumps[(random.pareto(1.2, rows) * 5).astype(np.int64) % len(clumps)]
        items = (0.6 * chosen + random.normal(size=(rows, LATENT)) * decay) @ basis
        descriptors[start : start + rows] = items / np.linalg.norm(items, axis=1, keepdims=True)
    originals = random.permutation(count)[: 2 * (count // PLANTED)].reshape(-1, 2)
    for original, copy in originals:
        similarity = random.uniform(0.90, 1.0)
        noise = random.normal(size=dimension)
        noise -= (noise @ descriptors[original]) * descriptors[original]
        noise *= np.sqrt(1 - similarity**2) / np.linalg.norm(noise)
        descriptors[copy] = similarity * descriptors[original] + noise
    return descriptors, originals


IMAGEDEDUP = """
import json, sys, time
import numpy as np
import torch
from imagededup.methods import CNN
from imagededup.utils import CustomModel

model = torch.nn.Identity()
finder = CNN(verbose=False, model_config=CustomModel("none", model, lambda image: image))
rows = np.load(sys.argv[1])
names = {f"{number:08}": row for number, row in enumerate(rows)}
started = time.perf_counter()
least = float(sys.argv[2])
found = finder.find_duplicates(encoding_map=names, min_similarity_threshold=least, num_sim_workers=1)
seconds = time.perf_counter() - started
pairs = [(int(a), int(b)) for a in found for b in found[a] if int(a) < int(b)]
np.save(sys.argv[1], np.array(pairs, np.int64).reshape(-1, 2))
print(json.dumps(seconds))
"""


def imagededup(
    python: Path, descriptors: Floats, threshold: float, every: np.ndarray, seconds: float
) -> list[float] | str:
    """Its time and recall for the same descriptors, or what it ended with."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.npy")
        np.save(file, descriptors)
        command = [python, "-c", IMAGEDEDUP, file, str(threshold)]
        # It has processes of its own, which must end with it.
        with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, start_new_session=True) as process:
            try:
                out, errors = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return f"not done after {seconds:.0f} s"
        if process.returncode:
            return f"status {process.returncode}: {errors.strip().splitlines()[-1:]}"
        pairs = np.load(file)
    keys = pairs[:, 0] * len(descriptors) + pairs[:, 1]
    took = json.loads(out.splitlines()[-1])
    return [round(took, 1), round(float(np.isin(every, keys).mean()), 5)]


def measure(
    count: int, dimension: int, threshold: float, exact_up_to: int, python: Path | None, patience: float
) -> dict[str, object]:
    descriptors, planted = image_like(count, dimension)
    before = resident()
    _reset_peak()
    with tempfile.TemporaryDirectory() as folder:
        shards = Folder(Path(folder), {})
        started = time.perf_counter()
        found = Search(shards, Asked(threshold)).run(lambda: _snapshot(descriptors))
        seconds = time.perf_counter() - started
        peak = _peak()
        facts = [shards.facts("groups", number) for number in range(shards.count("groups"))]
        group = np.full(count, -1)
        for number in range(len(facts)):
            table = shards.get("groups", number).table
            group[table.column("row").to_numpy()] = table.column("group").to_numpy()
        connected = _connected(shards)
    together = (group[planted[:, 0]] == group[planted[:, 1]]) & (group[planted[:, 0]] >= 0)
    similar = verified_scores(descriptors, planted[:, 0], planted[:, 1]) >= threshold
    met = (connected[planted[:, 0]] == connected[planted[:, 1]])[similar]
    line: dict[str, object] = {
        "items": count,
        "dimension": dimension,
        "seconds": round(seconds, 1),
        "memory": round((peak - before + descriptors.nbytes) / descriptors.nbytes, 2),
        "pairs": found.pairs,
        "groups": sum(fact["groups"] for fact in facts),
        "split": facts[0]["split"],
        "planted_found": round(float(met.mean()), 5),
        "planted_together": round(float(together.mean()), 5),
        "recall": None
        if found.recall is None
        else [
            round(found.recall.found / max(1, found.recall.pairs), 5),
            *np.round(found.recall.interval(), 4),
        ],
    }
    if count <= exact_up_to:
        line |= beside_exact(descriptors, threshold, python, patience)
    return line


def beside_exact(
    descriptors: np.ndarray, threshold: float, python: Path | None, patience: float
) -> dict[str, object]:
    """What comparing every pair takes, and how many of its pairs the clustered search has."""
    count = len(descriptors)
    rows = np.arange(count)
    started = time.perf_counter()
    every = _keys(similar_pairs(descriptors, rows, threshold), count)
    exact_seconds = time.perf_counter() - started
    started = time.perf_counter()
    some = _keys(clustered_pairs(descriptors, rows, threshold), count)
    line: dict[str, object] = {
        "exact_seconds": round(exact_seconds, 1),
        "clustered_seconds": round(time.perf_counter() - started, 1),
        "edge_recall": round(float(np.isin(every, some).mean()), 5),
    }
    if python is not None:
        line["imagededup"] = imagededup(python, descriptors, threshold, every, patience)
    return line


def _connected(shards: Folder) -> np.ndarray:
    """The set of each row, from the links."""
    images = shards.get("images", 0).table
    parent = np.arange(images.num_rows)
    for number in range(shards.count("links")):
        table = shards.get("links", number).table
        join(parent, table.column("first").to_numpy(), table.column("second").to_numpy())
    sets = np.empty(images.num_rows, np.int64)
    sets[images.column("row").to_numpy()] = roots(parent, images.column("image").to_numpy())
    return sets


def _snapshot(descriptors: Floats) -> Snapshot:
    count = len(descriptors)
    ids = [f"{number:08}" for number in range(count)]
    numbers, none = np.arange(1, count + 1), np.zeros(count, np.bool_)
    return Snapshot(count, numbers, ids, descriptors, [b""] * count, [""] * count, none)


def _keys(blocks: Iterable[Pairs], count: int) -> np.ndarray:
    return np.concatenate([block.first * count + block.second for block in blocks])


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("items", nargs="+", type=int)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--exact-up-to", type=int, default=100_000)
    parser.add_argument("--imagededup", type=Path, metavar="PYTHON")
    parser.add_argument("--patience", type=float, default=600, help="seconds for imagededup")
    asked = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    for count in asked.items:
        with spawn.Pool(1) as alone:
            question = (asked.dimension, asked.threshold, asked.exact_up_to, asked.imagededup, asked.patience)
            line = alone.apply(measure, (count, *question))
        print(json.dumps(line, default=float), flush=True)


if __name__ == "__main__":
    main()
