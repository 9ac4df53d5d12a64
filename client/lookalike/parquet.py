"""Collections as Parquet files, for those who go on with them in pandas, DuckDB or Spark, and back.

Columns: id, attributes (JSON), digest, sequence, descriptor (a list of `dimension` floats). The file's
metadata tell the recipe and the embedding space, so that none of another space are taken for one's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lookalike.errors import ExtraMissing, FailedPrecondition, InvalidArgument
from lookalike.records import AddReport, CollectionInfo, Item

if TYPE_CHECKING:
    from lookalike.collection import Collection

_ROWS = 1000
_COLUMNS = ("id", "attributes", "descriptor")


def export_parquet(collection: Collection, path: str | os.PathLike[str], where: str = "") -> int:
    """Writes the items that fit to a new file, in the order of their last write; returns how many.

    An item that is written meanwhile may come twice, the later one last: importing keeps that.
    Raises FileExistsError, and ExtraMissing without pyarrow.
    """
    arrow, parquet = _pyarrow()
    if Path(path).exists():
        raise FileExistsError(17, "is there already; choose another name", str(path))
    part = Path(f"{os.fspath(path)}.part")
    schema = _schema(arrow, collection.info())
    items, count = collection.items(where, descriptors=True), 0
    try:
        with parquet.ParquetWriter(part, schema) as writer:
            while page := list(islice(items, _ROWS)):
                writer.write_table(_table(arrow, schema, page))
                count += len(page)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def import_parquet(collection: Collection, path: str | os.PathLike[str]) -> AddReport:
    """Writes the rows of a file as items, replacing those whose ids are there.

    The columns id and descriptor are needed. Raises InvalidArgument for other files, FailedPrecondition for
    descriptors of another space.
    """
    arrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            _check(file.schema_arrow, collection.info(), path)
            columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
            rows = list(_rows(file, columns, collection.info().space.dimension, path))
    except arrow.ArrowInvalid as error:
        raise InvalidArgument(f"{path} is no Parquet file: {error}", "PARQUET_INVALID") from None
    return collection.upsert(*zip(*rows, strict=True)) if rows else AddReport(0)


def recipe_of(path: str | os.PathLike[str]) -> str:
    """The recipe that a file's metadata name; empty when they name none."""
    _, parquet = _pyarrow()
    try:
        return _told(parquet.read_schema(path), "recipe")
    except ValueError as error:  # pyarrow's errors of bad files are ValueErrors
        raise InvalidArgument(f"{path} is no Parquet file: {error}", "PARQUET_INVALID") from None


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ExtraMissing(f"Parquet files need {error.name}: pip install pyarrow", "EXTRA_MISSING") from None
    return pyarrow, pyarrow.parquet


def _schema(arrow: Any, info: CollectionInfo) -> Any:
    fields = {
        "id": arrow.string(),
        "attributes": arrow.string(),
        "digest": arrow.binary(),
        "sequence": arrow.uint64(),
        "descriptor": arrow.list_(arrow.float32(), info.space.dimension),
    }
    told = {"space": info.space.id, "recipe": info.recipe, "metric": info.space.metric}
    return arrow.schema(fields, metadata={f"lookalike.{name}": value for name, value in told.items()})


def _table(arrow: Any, schema: Any, page: list[Item]) -> Any:
    return arrow.Table.from_pylist(
        [
            {
                "id": item.id,
                "attributes": json.dumps(item.attributes, ensure_ascii=False),
                "digest": item.digest,
                "sequence": item.sequence,
                "descriptor": item.descriptor,
            }
            for item in page
        ],
        schema=schema,
    )


def _told(schema: Any, name: str) -> str:
    value: bytes = (schema.metadata or {}).get(f"lookalike.{name}".encode(), b"")
    return value.decode()


def _check(schema: Any, info: CollectionInfo, path: str | os.PathLike[str]) -> None:
    missing = [name for name in ("id", "descriptor") if name not in schema.names]
    if missing:
        raise InvalidArgument(f"{path} has no column {missing[0]!r}", "PARQUET_INVALID")
    space = _told(schema, "space")
    if space and space != info.space.id:
        raise FailedPrecondition(
            f"{path} holds descriptors of space {space}; collection {info.name!r} holds those of "
            f"{info.space.id}",
            "SPACE_MISMATCH",
        )


def _rows(
    file: Any, columns: list[str], dimension: int, path: str | os.PathLike[str]
) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    for batch in file.iter_batches(_ROWS, columns=columns):
        for row in batch.to_pylist():
            if row["id"] is None:
                raise InvalidArgument(f"{path}: a row has no id", "PARQUET_INVALID")
            of = f"of {row['id']!r}"
            vector = _descriptor(row, dimension, f"{path}: the descriptor {of}")
            yield str(row["id"]), vector, _attributes(row, f"{path}: the attributes {of}")


def _descriptor(row: dict[str, Any], dimension: int, what: str) -> Any:
    try:
        with np.errstate(over="ignore"):  # infinity is refused like NaN
            vector = np.asarray(row["descriptor"], np.float32)
    except (TypeError, ValueError):
        vector = np.empty((), np.float32)
    if vector.ndim != 1:
        raise InvalidArgument(f"{what} is no list of numbers", "DESCRIPTOR_INVALID")
    if len(vector) != dimension:
        raise InvalidArgument(f"{what} has {len(vector)} elements, not {dimension}", "DESCRIPTOR_INVALID")
    return vector


def _attributes(row: dict[str, Any], what: str) -> Mapping[str, Any]:
    """From JSON, as an export has them, or from a struct."""
    told = row.get("attributes") or {}
    try:
        value = json.loads(told) if isinstance(told, str) else told
    except ValueError as error:
        raise InvalidArgument(f"{what} are no JSON: {error}", "ATTRIBUTES_INVALID") from None
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{what} are no JSON object: {told!r}", "ATTRIBUTES_INVALID")
    return value
