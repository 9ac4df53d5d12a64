"""The report as a Parquet file, for those who go on with it in pandas, DuckDB or Spark."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .contents import Report
from .files import draft_of

_COLUMNS = ("id", "path", "similarity", "identical", "same_pixels", "width", "height", "bytes", "modified")


def write_parquet(report: Report, path: Path) -> None:
    """Writes one row for each photo of each group, in the columns of the CSV, with types: unknown is null.

    Needs pyarrow, which comes with the `server` extra.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Parquet files need {error.name}: pip install pyarrow", name=error.name
        ) from error

    kinds = {
        "group": pa.int64(),
        "action": pa.string(),
        "id": pa.string(),
        "path": pa.string(),
        "similarity": pa.float32(),
        "identical": pa.bool_(),
        "same_pixels": pa.bool_(),
        "width": pa.int64(),
        "height": pa.int64(),
        "bytes": pa.int64(),
        "modified": pa.timestamp("us", "UTC"),
    }
    rows = [
        {"group": number, "action": photo.action, **{name: _value(photo, name) for name in _COLUMNS}}
        for number, group in enumerate(report.groups, 1)
        for photo in report.photos(group)
    ]
    table = pa.Table.from_pylist(rows, pa.schema(list(kinds.items())))
    with draft_of(path) as draft:
        pq.write_table(table, draft)
        descriptor = os.open(draft, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _value(photo: Any, name: str) -> Any:
    value = getattr(photo, name)
    # Parquet's text is UTF-8; bytes of a file's name that are none are shown as \xff.
    return _text(str(value)) if name in ("id", "path") and value is not None else value


def _text(value: str) -> str:
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
