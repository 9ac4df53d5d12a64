"""`lookalike embed`: descriptors of photos into a file."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from lookalike.cli.connection import connect, place_options
from lookalike.cli.meter import meter
from lookalike.cli.output import (
    check_place,
    failures_json,
    interruptible,
    list_failures,
    plural,
    print_json,
    shown,
    writing,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lookalike import Client
    from lookalike.cli.photos import Photo
    from lookalike.records import Failure


@click.command("embed", short_help="Write the descriptors of photos.")
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="FILE.npy (with the paths in FILE.json beside it) or FILE.npz (with both).",
)
@click.option("--recipe", default="", help="Of the descriptors.  [default: the server's first]")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@place_options
def command(
    photos: tuple[Path, ...],
    output: Path,
    recipe: str,
    as_json: bool,
    server: str | None,
    data: Path | None,
) -> int:
    """Writes the descriptors of photos (files and folders): float32 [photos, dimension], rows of length 1."""
    from lookalike.cli.photos import find_photos

    write = _writer(output)
    found = find_photos(photos)
    start = time.monotonic()
    with connect(server, data, len(found.photos)) as client:
        client.limits()  # where nobody answers, that is all there is to say
        with interruptible(f"{shown(output)} was not written"):
            paths, rows, failed = _embed(client, found.photos, recipe)
    failed = [*found.unreadable, *failed]
    if rows:
        write(paths, rows)
    rate = len(rows) / (time.monotonic() - start)
    if as_json:
        shape = {"count": len(rows), "dimension": len(rows[0]) if rows else 0}
        print_json({"output": str(output), **shape, "failed": failures_json(failed)})
    elif rows:
        click.echo(
            f"{output}: {plural(len(rows), 'descriptor')} of {len(rows[0])} dimensions ({rate:.1f} photos/s)"
        )
    list_failures(failed)
    return 0 if rows else 1


def _embed(
    client: Client, photos: Sequence[Photo], recipe: str
) -> tuple[list[str], list[NDArray[np.float32]], list[Failure]]:
    paths: list[str] = []
    rows: list[NDArray[np.float32]] = []
    failed: list[Failure] = []
    with meter("embedding", len(photos), "photos") as advance:
        for result in client.embed_many((p.path for p in photos), recipe, on_error="report"):
            if result.failure is not None:
                failed.append(result.failure)
            elif result.descriptor is not None:
                paths.append(shown(result.source))
                rows.append(result.descriptor)
            advance(result.index + 1, len(photos))
    return paths, rows, failed


Write = Callable[[list[str], list[Any]], None]


def _writer(output: Path) -> Write:
    """How to write the file, known before the work begins. Raises click.UsageError when it cannot be."""
    writers = {".npy": _write_npy, ".npz": _write_npz}
    if output.suffix not in writers:
        raise click.UsageError(f"-o takes a file that ends in .npy or .npz, not {output.name!r}")
    check_place(output)
    return lambda paths, rows: writers[output.suffix](output, paths, rows)


def _write_npy(output: Path, paths: list[str], rows: list[Any]) -> None:
    import numpy as np

    with _whole(output) as file, _whole(output.with_suffix(".json")) as sidecar:
        np.save(file, np.stack(rows))
        sidecar.write(json.dumps(paths, indent=0).encode())


def _write_npz(output: Path, paths: list[str], rows: list[Any]) -> None:
    import numpy as np

    with _whole(output) as file:
        np.savez(file, vectors=np.stack(rows), paths=np.array(paths))


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file that appears when all of it is written, or not at all."""
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    with writing(path):
        try:
            with draft.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
