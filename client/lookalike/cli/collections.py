"""`lookalike collections`: what is stored, and an end to what is not wanted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from lookalike.cli.connection import connect, place_options
from lookalike.cli.output import print_json, print_table, say


@click.group("collections", short_help="List or delete collections.")
def command() -> None:
    """Lists and deletes collections."""


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
        rows = [[i.name, i.recipe, f"{i.item_count:,}", f"{i.created:%Y-%m-%d %H:%M}"] for i in infos]
        print_table(["collection", "recipe", "items", "created (UTC)"], rows)


@command.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@place_options
def delete(name: str, yes: bool, server: str | None, data: Path | None) -> None:
    """Deletes a collection and all its items, for good. The photos themselves are not touched."""
    with connect(server, data) as client:
        count = client.collection(name).info().item_count
        if not yes:
            click.confirm(f"Delete {name} with {count:,} items?", abort=True, err=True)
        client.delete_collection(name)
    say(f"deleted {name}")
