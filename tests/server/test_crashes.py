"""Crashes at any file operation, and a full disk. `benchmarks/crashing/run.py` is the long form."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "crashing"

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def test_whatever_a_crash_leaves_on_the_disk_nothing_acknowledged_is_lost() -> None:
    result = subprocess.run(
        [sys.executable, FOLDER / "run.py", "--rounds", "150", "--seed", "7"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads(result.stdout)
    assert figures["faults"] == {}
    assert figures["outcomes"]["right"] > 75


FULL = """
import sys
from pathlib import Path

import numpy as np
from lookalike_extractor.recipe import Space
from lookalike_server.catalog import Catalog
from lookalike_server.errors import DiskFull
from lookalike_server.rows import NewRow

root, full = Path(sys.argv[1]), Path(sys.argv[2])


def row(i):
    return NewRow(str(i), np.random.default_rng(i).standard_normal(256).astype(np.float32))


def refused(rows):
    try:
        shop.upsert(rows)
    except DiskFull as error:
        return "disk is full" in str(error)
    return False


with Catalog(root) as catalog:
    shop = catalog.create("shop", Space(id="full", dimension=256, recipe="full"))
    shop.upsert([row(i) for i in range(2000)])
    full.touch()  # from now on nothing can grow
    for start in range(2000, 20000, 200):
        if refused([row(i) for i in range(start, start + 200)]):
            break
    else:
        sys.exit("the disk was never full")
    held = shop.count
    assert refused([row(i) for i in range(20000, 20200)])
    for i in range(0, 1000, 50):
        assert shop.delete([str(j) for j in range(i, i + 50)]).deleted == 50
    assert shop.count == held - 1000
    assert shop.get(["1500"]) and len(shop.search(row(1500).descriptor[None], 1).hits[0]) == 1
    full.unlink()
    shop.upsert([row(i) for i in range(500)])
with Catalog(root) as catalog:
    assert catalog.get("shop").count == held - 500
    assert catalog.get("shop").verify().problems == ()
"""


def test_deletes_go_on_when_the_disk_is_full_and_writes_when_it_is_not(tmp_path: Path) -> None:
    library = tmp_path / "recorder.so"
    command = ["cc", "-shared", "-fPIC", "-o", library, FOLDER / "recorder.c", "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    (tmp_path / "data").mkdir()
    full = tmp_path / "full"
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "FAULT_ROOT": str(tmp_path / "data"),
        "FAULT_FULL": str(full),
    }
    arguments = [sys.executable, "-c", FULL, tmp_path / "data", full]
    result = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
