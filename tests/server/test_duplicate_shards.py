"""A search that is ended at any point and run again leaves the same files as one that was not."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from lookalike_server.answers import Snapshot
from lookalike_server.duplicates import Asked, Progress, Search, search, stages
from lookalike_server.duplicates.shards import MANIFEST, Folder, Shard

ASKED = Asked(0.9)
QUESTION = {"threshold": 0.9}
COUNT = 300


@pytest.fixture(autouse=True)
def _many_small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_EXACT_CELLS", 1)
    monkeypatch.setattr(search, "_LINK_SHARDS", 3)
    monkeypatch.setattr(stages, "ROWS", 128)
    monkeypatch.setattr(stages, "LISTED", 100)


def items() -> Snapshot:
    """Twins, triplets and strangers, some of them exact copies."""
    random = np.random.default_rng(5)
    vectors = random.normal(size=(COUNT, 16))
    vectors[1::3] = vectors[::3] + 0.1 * random.normal(size=vectors[::3].shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Snapshot(
        COUNT,
        np.arange(1, COUNT + 1),
        [f"item{i}" for i in range(COUNT)],
        vectors.astype(np.float32),
        [b"" if i % 7 else b"same" for i in range(COUNT)],
        [json.dumps({"width": i, "height": 1}) for i in range(COUNT)],
        np.zeros(COUNT, np.bool_),
    )


def run(path: Path, watch: Callable[[Progress], None] = lambda progress: None) -> Progress:
    path.mkdir(exist_ok=True)
    return Search(Folder(path, QUESTION), ASKED, watch).run(items)


def content(path: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.iterdir()
        if not file.name.endswith(".tmp")
    }


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, str]:
    run(tmp_path / "whole")
    return content(tmp_path / "whole")


class Killed(BaseException):
    pass


@pytest.fixture
def fuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ends the process, as it were, at the n-th of the steps that reach the disk."""
    left = [10**9]

    def burn(real: Callable[..., None]) -> Callable[..., None]:
        def step(*arguments: object) -> None:
            left[0] -= 1
            if not left[0]:
                raise Killed
            real(*arguments)

        return step

    monkeypatch.setattr(os, "fsync", burn(os.fsync))
    monkeypatch.setattr(Path, "rename", burn(Path.rename))
    return lambda steps: left.__setitem__(0, steps)


def test_the_files_of_a_search_are_the_same_each_time(tmp_path: Path, whole: dict[str, str]) -> None:
    run(tmp_path / "again")
    assert content(tmp_path / "again") == whole
    assert {name.rpartition("-")[0] for name in whole} == {
        "", "snapshot", "images", "centres", "lists", "links", "recall", "groups"
    }  # fmt: skip


def test_a_search_ended_at_any_step_ends_with_the_same_files(
    tmp_path: Path, whole: dict[str, str], fuse: Callable[[int], None]
) -> None:
    steps, ended = 0, False
    while not ended:
        steps += 5  # each file takes six: every kind of step is met
        path = tmp_path / str(steps)
        fuse(steps)
        try:
            run(path)
            ended = True
        except Killed:
            fuse(10**9)
            run(path)
        assert content(path) == whole
    assert steps > 60


def test_a_search_ended_again_and_again_ends_with_the_same_files(
    tmp_path: Path, whole: dict[str, str], fuse: Callable[[int], None]
) -> None:
    for _ in range(100):
        fuse(25)  # enough for the snapshot, which is taken at one moment or again
        try:
            run(tmp_path / "run")
            break
        except Killed:
            continue
    assert content(tmp_path / "run") == whole


def test_what_was_done_is_not_done_again(tmp_path: Path, whole: dict[str, str]) -> None:
    path = tmp_path / "whole"
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    ended = run(path)
    assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == before
    assert (ended.share, ended.items) == (1.0, COUNT)
    assert ended.pairs > 100
    assert ended.recall is not None


@pytest.mark.parametrize("stage", ["images", "centres", "lists", "links", "groups"])
def test_a_damaged_shard_is_made_anew(tmp_path: Path, whole: dict[str, str], stage: str) -> None:
    file = tmp_path / "whole" / f"{stage}-00000.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    run(tmp_path / "whole")
    assert content(tmp_path / "whole") == whole


def test_with_a_damaged_snapshot_everything_is_made_anew(tmp_path: Path, whole: dict[str, str]) -> None:
    (tmp_path / "whole" / "snapshot-00001.parquet").unlink()
    run(tmp_path / "whole")
    assert content(tmp_path / "whole") == whole


@pytest.mark.parametrize("manifest", [b"{", b"[]", b'{"version": 99}'])
def test_a_manifest_that_cannot_be_read_counts_as_none(
    tmp_path: Path, whole: dict[str, str], manifest: bytes
) -> None:
    (tmp_path / "whole" / MANIFEST).write_bytes(manifest)
    run(tmp_path / "whole")
    assert content(tmp_path / "whole") == whole


def test_shards_made_for_another_question_are_forgotten(tmp_path: Path) -> None:
    Folder(tmp_path, {"threshold": 0.5}).put("links", 0, Shard(pa.table({"first": [1]})))
    assert Folder(tmp_path, {"threshold": 0.6}).get("links", 0) is None
    assert not list(tmp_path.glob("*.parquet"))
