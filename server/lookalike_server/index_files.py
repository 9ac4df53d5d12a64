"""Files of approximate indexes.

    <data>/<collection>/indexes/<first>-<last>-<count>     keys and runs, then FAISS's own format

An index is a copy, as segments are: a file that is missing or not what was written is made anew, and until an
index is there its rows are scanned. Its entry in the store holds a checksum, tuning and measured recall.
"""

from __future__ import annotations

import logging
import os
import zlib
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from lookalike_server.approximate import Approximate
from lookalike_server.huge_pages import use_huge_pages
from lookalike_server.runs import Runs
from lookalike_server.schema import sync_folder
from lookalike_server.structure import Effort

_log = logging.getLogger(__name__)


def file_name(index: Approximate) -> str:
    return f"{index.first}-{index.last}-{len(index.keys)}"


def write_index(folder: Path, index: Approximate) -> dict[str, Any]:
    """Puts an index on disk, where it is not there yet, and returns its entry in the list."""
    path = folder / file_name(index)
    data = [index.runs.members.astype("<i8", copy=False), index.runs.starts.astype("<i8", copy=False)]
    data.append(faiss.serialize_index(index.index))
    entry = {
        "file": path.name,
        "factory": index.factory,
        "recall": index.recall,
        "target": index.target,
        "count": len(index.keys),
        "runs": len(index.runs.starts),
        "effort": asdict(index.effort),
        "crc": reduce(lambda crc, piece: zlib.crc32(piece.data, crc), data, 0),
    }
    folder.mkdir(exist_ok=True)
    draft = folder / "draft"
    with draft.open("wb") as file:
        for piece in data:
            file.write(piece.data)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync_folder(folder)
    return entry


def read_index(folder: Path, entry: dict[str, Any]) -> Approximate | None:
    """Returns the index of an entry, or None when its file is not what was written."""
    try:
        data = (folder / entry["file"]).read_bytes()
    except OSError:
        data = b""
    if zlib.crc32(data) != entry["crc"] or not data:
        _log.warning("%s is damaged or missing; it is made anew", folder / entry["file"])
        return None
    keys, runs = 8 * entry["count"], 8 * entry["runs"]
    index = faiss.deserialize_index(np.frombuffer(data, np.uint8, offset=keys + runs))
    use_huge_pages(index)
    members, starts = (
        np.frombuffer(data, "<i8", entry["count"]),
        np.frombuffer(data, "<i8", entry["runs"], keys),
    )
    return Approximate(
        index,
        Runs(members.copy(), starts.copy()),
        entry["factory"],
        Effort(**entry["effort"]),
        entry["recall"],
        entry["target"],
    )


def remove_others(folder: Path, known: set[str]) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in known:
            path.unlink(missing_ok=True)
