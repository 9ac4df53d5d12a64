"""`lookalike index`: photos into a collection."""

from __future__ import annotations

from pathlib import Path

import click

from lookalike.cli.connection import connect, place_options
from lookalike.cli.output import failures_json, interruptible, list_failures, print_json


@click.command("index", short_help="Put photos into a collection.")
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-c", "--collection", required=True, metavar="NAME", help="Made when it is not there.")
@click.option("--recipe", default="", help="Of a new collection.  [default: the server's first]")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@place_options
def command(
    photos: tuple[Path, ...],
    collection: str,
    recipe: str,
    as_json: bool,
    server: str | None,
    data: Path | None,
) -> int:
    """Puts photos (files and folders) into a collection.

    May be stopped and run again: files that have not changed since are not sent again.
    """
    from lookalike.cli.indexing import bring_up_to_date
    from lookalike.cli.photos import find_photos

    found = find_photos(photos)
    with connect(server, data, len(found.photos)) as client:
        shelf = client.create_collection(collection, recipe, exist_ok=True)
        with interruptible(
            f"what was indexed is kept in {collection!r}; the same command goes on from there"
        ):
            outcome = bring_up_to_date(shelf, found.photos, forget_others=False)
        count = shelf.info().item_count
    failed = [*found.unreadable, *outcome.failed]
    if as_json:
        counts = {"added": outcome.added, "unchanged": outcome.unchanged, "items": count}
        print_json({"collection": collection, **counts, "failed": failures_json(failed)})
    else:
        click.echo(f"{outcome}; {collection} has {count:,} items")
    list_failures(failed)
    return 0 if outcome.added or outcome.unchanged else 1
