"""`lookalike reembed`: a collection copied to another recipe, and put in the old one's place at the end."""

from __future__ import annotations

from pathlib import Path

import click

from lookalike.cli.connection import connect, place_options
from lookalike.cli.meter import meter
from lookalike.cli.output import failures_json, interruptible, list_failures, plural, print_json, say


@click.command("reembed", short_help="Copy a collection to another recipe.")
@click.argument("source")
@click.argument("name")
@click.option("--recipe", required=True, help="Of the copy.")
@click.option("--alias", default="", metavar="ALIAS", help="Stands for the copy once all is there.")
@click.option("--allow-missing", is_flag=True, help="Switch the alias also when photos are gone.")
@click.option("--delete-others", is_flag=True, help="Delete items of NAME that SOURCE does not have.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@place_options
def command(
    source: str,
    name: str,
    recipe: str,
    alias: str,
    allow_missing: bool,
    delete_others: bool,
    as_json: bool,
    server: str | None,
    data: Path | None,
) -> int:
    """Copies collection SOURCE to a new one, NAME, with another recipe, from the photos it was made of.

    SOURCE stays, and may be written to meanwhile. May be stopped and run again: what is there already is not
    sent again. Ends with 1 when photos are gone or have changed.
    """
    from lookalike.reembedding import reembed

    with connect(server, data) as client:
        shelf = client.collection(source)
        with (
            interruptible(f"what was copied is kept in {name!r}; the same command goes on from there"),
            meter("copying", shelf.info().item_count, "photos") as advance,
        ):
            report = reembed(
                shelf,
                name,
                recipe,
                alias=alias,
                allow_missing=allow_missing,
                delete_others=delete_others,
                progress=lambda progress: advance(progress.done, progress.total or 0),
            )
    if as_json:
        counts = {"items": report.item_count, "copied": report.copied, "deleted": report.deleted}
        missing = failures_json(report.missing)
        print_json({"collection": name, **counts, "missing": missing, "switched": report.switched})
    else:
        click.echo(f"copied {plural(report.copied, 'photo')}; {name} has {report.item_count:,} items")
    list_failures(report.missing, "could not be copied")
    if alias:
        say(f"{alias} stands for {name} now" if report.switched else f"{alias} was left as it is")
    return 1 if report.missing else 0
