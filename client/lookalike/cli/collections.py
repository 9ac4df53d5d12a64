"""`lookalike collections`: what is stored, under which names, whether it is whole, copies, an end to it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lookalike.cli.connection import connect, place_options
from lookalike.cli.hints import hint_at_attributes
from lookalike.cli.output import (
    ask_to_delete,
    check_place,
    interruptible,
    list_failures,
    plural,
    print_json,
    print_table,
    say,
    writing,
)
from lookalike.errors import DataLoss, FailedPrecondition

if TYPE_CHECKING:
    from lookalike import Client
    from lookalike.records import IndexInfo


@click.group("collections", short_help="List, name, verify, copy, restore or delete collections.")
def command() -> None:
    """Lists, names, verifies, copies, restores and deletes collections."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@place_options
def list_(as_json: bool, server: str | None, data: Path | None) -> None:
    """Lists all collections."""
    with connect(server, data) as client:
        infos = client.collections()
    if as_json:
        print_json([asdict(info) | {"created": info.created.isoformat()} for info in infos])
    elif not infos:
        say("there are no collections")
    else:
        rows = [
            [i.name, i.recipe, f"{i.item_count:,}", f"{i.created:%Y-%m-%d %H:%M}", ", ".join(i.aliases)]
            for i in infos
        ]
        print_table(["collection", "recipe", "items", "created (UTC)", "aliases"], rows)


@command.command("alias")
@click.argument("alias")
@click.argument("name", required=False)
@click.option("--delete", "delete_it", is_flag=True, help="Delete the alias; its collection stays.")
@place_options
def alias(alias: str, name: str | None, delete_it: bool, server: str | None, data: Path | None) -> None:
    """Makes ALIAS stand for collection NAME from now on, in place of another."""
    if (name is None) != delete_it:
        raise click.UsageError("give a NAME or --delete")
    with connect(server, data) as client:
        if name is None:
            client.delete_alias(alias)
            say(f"{alias} stands for nothing now")
        else:
            say(f"{alias} stands for {client.set_alias(alias, name).info().name}")


@command.command("attributes")
@click.argument("name")
@click.argument("attributes", nargs=-1)
@click.option("--none", is_flag=True, help="Remove all indexes on attributes.")
@place_options
def attributes(
    name: str, attributes: tuple[str, ...], none: bool, server: str | None, data: Path | None
) -> None:
    """Shows which attributes filters find through an index, or chooses just these ATTRIBUTES."""
    if none and attributes:
        raise click.UsageError("give ATTRIBUTES or --none")
    with connect(server, data) as client:
        shelf = client.collection(name)
        info = shelf.set_attribute_indexes(attributes) if none or attributes else shelf.info()
    for attribute in info.attribute_indexes:
        click.echo(attribute)
    if not info.attribute_indexes:
        say(f"no attribute of {name} has an index")


@command.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@place_options
def delete(name: str, yes: bool, server: str | None, data: Path | None) -> None:
    """Deletes a collection and all its items, for good. The photos themselves are not touched."""
    with connect(server, data) as client:
        if not yes:
            ask_to_delete(_described(client, name))
        client.delete_collection(name)
    say(f"deleted {name}")


def _described(client: Client, name: str) -> str:
    """A collection that cannot be read can still be deleted, to make room for its backup."""
    try:
        return f"{name} with {client.collection(name).info().item_count:,} items"
    except (DataLoss, FailedPrecondition) as error:
        say(error.message)
        return f"{name}, which cannot be read"


@command.command("verify")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@place_options
def verify(name: str, as_json: bool, server: str | None, data: Path | None) -> int:
    """Reads all that is stored of a collection and compares all copies of it. Ends with 1 for a fault."""
    with connect(server, data) as client:
        report = client.collection(name).verify()
    if as_json:
        print_json(asdict(report))
    else:
        for problem in report.problems:
            say(problem)
        faults = plural(len(report.problems), "fault") if report.problems else "no faults"
        say(f"{name}: {faults} in {report.item_count:,} items and {report.segment_count:,} segments")
    return 1 if report.problems else 0


@command.command("backup")
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@place_options
def backup(name: str, file: Path, server: str | None, data: Path | None) -> None:
    """Copies a collection to FILE, as it is now. Others may go on writing to it."""
    check_place(file)
    with connect(server, data) as client, interruptible("no file was written"), writing(file):
        sequence = client.collection(name).backup(file)
    say(f"{name} up to write {sequence} is in {file}, {file.stat().st_size / 1e6:,.1f} MB")


@command.command("restore")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("name", required=False, default="")
@place_options
def restore(file: Path, name: str, server: str | None, data: Path | None) -> None:
    """Makes a collection of a FILE that `backup` wrote, under its old name or NAME."""
    if not file.is_file():
        raise click.UsageError(f"there is no file {str(file)!r}")
    with connect(server, data) as client, interruptible("nothing was restored"):
        info = client.restore(file, name).info()
    say(f"{info.name} is there again, with {info.item_count:,} items")


@command.command("export")
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--where", default="", metavar="FILTER", help='Only items that fit, as "price < 100".')
@place_options
def export(name: str, file: Path, where: str, server: str | None, data: Path | None) -> None:
    """Writes ids, attributes and descriptors to FILE, in Parquet."""
    from lookalike.parquet import export_parquet

    check_place(file)
    with connect(server, data) as client, interruptible("no file was written"), writing(file):
        shelf = client.collection(name)
        count = export_parquet(shelf, file, where)
        if where and not count:
            hint_at_attributes(shelf, where)
    say(f"{plural(count, 'item')} of {name} in {file}")


@command.command("import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("name")
@place_options
def import_(file: Path, name: str, server: str | None, data: Path | None) -> int:
    """Writes the rows of a Parquet FILE to collection NAME, which is made when it is not there."""
    from lookalike.parquet import import_parquet, recipe_of

    if not file.is_file():
        raise click.UsageError(f"there is no file {str(file)!r}")
    with connect(server, data) as client, interruptible("what was written stays"):
        shelf = client.create_collection(name, recipe_of(file), exist_ok=True)
        report = import_parquet(shelf, file)
    list_failures([replace(one, source=one.id) for one in report.failed], "could not be written", "item")
    say(f"{plural(report.added, 'item')} written to {name}")
    return 1 if report.failed else 0


@command.command("index")
@click.argument("name")
@click.option("--kind", metavar="KIND", help='"auto", "exact" or a factory string of FAISS, as HNSW32,SQ8.')
@click.option(
    "--target-recall",
    type=click.FloatRange(0.5, 1),
    default=0.98,
    show_default=True,
    help="Share of the ten nearest that searches should find.",
)
@click.option(
    "--storage",
    type=click.Choice(["fp16", "int8", "pq"]),
    default="fp16",
    show_default=True,
    help="How the index keeps vectors.",
)
@click.option("--estimate", is_flag=True, help="Tell what it would take, and change nothing.")
@place_options
def index(
    name: str,
    kind: str | None,
    target_recall: float,
    storage: str,
    estimate: bool,
    server: str | None,
    data: Path | None,
) -> None:
    """Shows how searches go through a collection, or chooses another way with --kind."""
    with connect(server, data) as client:
        shelf = client.collection(name)
        info = shelf.info()
        if estimate:
            size = max(1, info.item_count)
            taken = client.estimate_index(size, info.space.dimension, kind or "auto", storage=storage)
            memory, disk = taken.memory_bytes / 1e6, taken.disk_bytes / 1e6
            say(f"{taken.factory or 'exact scan'}: {memory:,.1f} MB of memory, {disk:,.1f} MB of disk")
            return
        if kind is not None:
            info = shelf.configure_index(kind, target_recall=target_recall, storage=storage)
    if info.index is not None:
        _show_index(info.index, info.item_count)


def _show_index(index: IndexInfo, count: int) -> None:
    beside = max(0, count - index.indexed_count)
    say(f"chosen: {index.kind}, for a recall of {index.target_recall:g}")
    if index.factory:
        measured = f"{index.factory} with a measured recall of {index.recall:.3f}"
        say(f"searches: {measured}, {beside:,} items beside")
    else:
        say("searches: exact scan")
    if index.building:
        say("an index is being made")
    say(f"{index.memory_bytes / 1e6:,.1f} MB of memory, {index.disk_bytes / 1e6:,.1f} MB of disk")
