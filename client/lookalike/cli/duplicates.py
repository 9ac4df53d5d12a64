"""`lookalike duplicates`: which photos show the same picture, and which one to keep."""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lookalike.cli.connection import connect, place_options
from lookalike.cli.meter import meter
from lookalike.cli.output import interruptible, list_failures, plural, say, shown, size
from lookalike.cli.plan import plan_options

if TYPE_CHECKING:
    from lookalike import Client
    from lookalike.cli.indexing import Outcome
    from lookalike.cli.photos import Found
    from lookalike.records import DuplicateGroup, DuplicateJob, RecipeInfo
    from lookalike.report import Report

_KEPT = "what was indexed is kept, and the same command goes on from there; no report was written"


@dataclass(frozen=True)
class Wish:
    """How to search, as the user said it."""

    recipe: str
    threshold: float | None
    policy: str


@click.command("duplicates", short_help="Find photos that show the same picture.")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    default=Path("lookalike-duplicates.html"),
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The report, one HTML file.",
)
@click.option(
    "--csv",
    "csv_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the groups as CSV as well.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the groups as JSON.")
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    help="Least similarity of two copies.  [default: the recipe's]",
)
@click.option("--recipe", default="", help="[default: the server's first]")
@click.option(
    "--policy",
    default="largest",
    show_default=True,
    type=click.Choice(["largest", "oldest", "most-connected"]),
    help="Which photo of a group to keep.",
)
@plan_options
@place_options
def command(
    folders: tuple[Path, ...],
    output: Path,
    csv_file: Path | None,
    as_json: bool,
    threshold: float | None,
    recipe: str,
    policy: str,
    server: str | None,
    data: Path | None,
) -> int:
    """Finds photos in FOLDERS that show the same picture: exact copies, and resized, recompressed or slightly
    cropped ones. Nothing is deleted or moved.

    Writes a report with thumbnails. Run again, it looks only at photos that are new or have changed.
    """
    from lookalike.cli.photos import find_photos

    for file in (output, csv_file):
        if file is not None and not file.absolute().parent.is_dir():
            raise click.UsageError(f"there is no folder {str(file.parent)!r} to write {file.name!r} into")
    found = find_photos(folders)
    wish = Wish(recipe, threshold, policy)
    machine = platform.node() if server else ""  # two machines may have folders of the same name
    with connect(server, data) as client, interruptible(_KEPT):
        outcome, report = _search(client, folders, found, wish, machine)
        _write(report, output, csv_file, as_json)
    if not as_json:
        _summary(report, outcome, output, csv_file)
    list_failures(report.unreadable)
    return 0 if outcome.added or outcome.unchanged else 1


def _search(
    client: Client, folders: Sequence[Path], found: Found, wish: Wish, machine: str
) -> tuple[Outcome, Report]:
    from lookalike.cli.indexing import bring_up_to_date

    recipe = _recipe(client, wish.recipe)
    name = _collection_name(folders, recipe, machine)
    collection = client.create_collection(name, recipe.name, exist_ok=True)
    outcome = bring_up_to_date(collection, found.photos, forget_others=True)
    jobs: list[DuplicateJob] = []
    with meter("comparing", outcome.added + outcome.unchanged, "photos") as advance:

        def watch(job: DuplicateJob) -> None:
            jobs[:] = [job]
            advance(job.items_done, job.items_total)

        groups = collection.find_duplicates(
            wish.threshold, policy=wish.policy.replace("-", "_"), progress=watch
        )
    for job in jobs:
        if job.sampled_pairs:
            say(
                "of so many photos only likely pairs were compared; they held "
                f"{job.sampled_pairs_found:,} of {job.sampled_pairs:,} pairs that an exact sample holds"
            )
    return outcome, _report(folders, found, outcome, groups, recipe, wish)


def _recipe(client: Client, name: str) -> RecipeInfo:
    """The recipe of that name; the first when the name is empty."""
    from lookalike.errors import NotFound

    recipes = client.recipes()
    for recipe in recipes:
        if name in ("", recipe.name):
            return recipe
    known = ", ".join(recipe.name for recipe in recipes)
    raise NotFound(f"there is no recipe {name!r}; there are {known}", "RECIPE_UNKNOWN")


def _collection_name(folders: Sequence[Path], recipe: RecipeInfo, machine: str) -> str:
    """The same folders and the same embedding space find their collection again."""
    roots = sorted({shown(folder.resolve()) for folder in folders})
    return "photos-" + hashlib.sha256("\0".join([recipe.space.id, machine, *roots]).encode()).hexdigest()[:16]


def _report(
    folders: Sequence[Path],
    found: Found,
    outcome: Outcome,
    groups: Sequence[DuplicateGroup],
    recipe: RecipeInfo,
    wish: Wish,
) -> Report:
    from lookalike.report import Report

    unreadable = [*found.unreadable, *outcome.failed]
    return Report(
        groups,
        {photo.id: photo.path for photo in found.photos},
        photos_seen=len(found.photos) + len(found.unreadable),
        unreadable=unreadable,
        sources=[shown(folder) for folder in folders],
        recipe=recipe.name,
        threshold=recipe.duplicate_threshold if wish.threshold is None else wish.threshold,
        policy=wish.policy,
    )


def _write(report: Report, output: Path, csv_file: Path | None, as_json: bool) -> None:
    from lookalike.report import write_csv, write_html, write_json

    with meter("reporting", len(report.groups), "groups") as advance:
        write_html(report, output, progress=advance)
    if csv_file is not None:
        write_csv(report, csv_file)
    if as_json:
        with tempfile.TemporaryDirectory() as folder:
            text = Path(folder, "report.json")
            write_json(report, text)
            with text.open() as file:
                shutil.copyfileobj(file, sys.stdout)


def _summary(report: Report, outcome: Outcome, output: Path, csv_file: Path | None) -> None:
    say(str(outcome))
    readable = report.photos_seen - len(report.unreadable)
    click.echo(
        f"{plural(readable, 'photo')}: {plural(len(report.groups), 'group')} of copies, "
        f"{plural(report.redundant, 'photo')} and {size(report.bytes_freed)} could go"
        if report.groups
        else f"{plural(readable, 'photo')}, no copies among them"
    )
    for file in (output, csv_file):
        if file is not None:
            click.echo(f"report: {shown(file.absolute())}")
