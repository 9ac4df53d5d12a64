"""`lookalike duplicates`: which photos show the same picture, and which one to keep."""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lookalike.cli.connection import connect, place_options
from lookalike.cli.meter import meter
from lookalike.cli.output import check_place, interruptible, list_failures, plural, say, shown, size
from lookalike.cli.plan import plan_options

if TYPE_CHECKING:
    from lookalike.cli.indexing import Outcome
    from lookalike.report import Report

_POLICIES = ("largest", "oldest", "most-connected", "sharpest")
_KEPT = "what was indexed is kept, and the same command goes on from there; no report was written"


def _policy(_: click.Context, __: click.Parameter, name: str) -> str:
    kind, _colon, attribute = name.partition(":")
    if name not in _POLICIES and not (kind in ("max", "min") and attribute):
        known = ", ".join(_POLICIES)
        raise click.BadParameter(f"{name!r} is not one of {known}, max:ATTRIBUTE, min:ATTRIBUTE.")
    return name


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
@click.option(
    "--parquet",
    "parquet_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the groups as Parquet as well.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the groups as JSON.")
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    help="Least similarity of two copies.  [default: the recipe's]",
)
@click.option(
    "--precision",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="In place of a threshold: the share of pairs that must be copies, by the collection's calibration.",
)
@click.option(
    "--against",
    metavar="FOLDER",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Look only for copies of what is in FOLDER, which stays as it is. May be given several times.",
)
@click.option(
    "--new", "new_only", is_flag=True, help="Only groups with a photo that is new or changed since last time."
)
@click.option("--recipe", default="", help="To compare photos by.  [default: the server's first]")
@click.option(
    "--policy",
    default="largest",
    show_default=True,
    callback=_policy,
    metavar="NAME",
    help="Which photo of a group to keep: largest, oldest, most-connected, sharpest (which looks at every"
    " photo once more), or max:ATTRIBUTE or min:ATTRIBUTE.",
)
@plan_options
@place_options
def command(
    folders: tuple[Path, ...],
    output: Path,
    csv_file: Path | None,
    parquet_file: Path | None,
    as_json: bool,
    threshold: float | None,
    precision: float | None,
    against: tuple[Path, ...],
    new_only: bool,
    recipe: str,
    policy: str,
    server: str | None,
    data: Path | None,
) -> int:
    """Finds photos in FOLDERS that show the same picture: exact copies, and resized, recompressed or slightly
    cropped ones. Nothing is deleted or moved.

    Writes a report with thumbnails. Run again, it looks only at photos that are new or have changed.
    """
    from lookalike.cli.searching import Wish, find, search

    if threshold is not None and precision is not None:
        raise click.UsageError("--precision stands in place of --threshold: give one of the two")
    for file in (output, csv_file, parquet_file):
        if file is not None:
            check_place(file)
    wish = Wish(folders, against, recipe, threshold, precision, policy, new_only)
    found = find(wish)
    machine = platform.node() if server else ""  # two machines may have folders of the same name
    with connect(server, data, len(found.photos)) as client:
        client.limits()  # nothing is kept yet where nobody answers
        with interruptible(_KEPT):
            outcome, report = search(client, found, wish, machine)
            readable = bool(outcome.added or outcome.unchanged)
            written = _write(report, output, csv_file, parquet_file) if readable else {}
            if as_json:
                _print_json(report)
    if readable and not as_json:
        _summary(report, outcome)
    for file, trouble in written.items():
        if trouble:
            say(f"{shown(file.absolute())} could not be written: {trouble}")
        elif not as_json:
            click.echo(f"report: {shown(file.absolute())}")
    list_failures(report.unreadable)
    if not readable:
        earlier = "; the earlier one was left as it is" if output.exists() else ""
        say(f"no photo could be read, so no report was written{earlier}")
    return 0 if readable and not any(written.values()) else 1


def _write(report: Report, output: Path, csv_file: Path | None, parquet_file: Path | None) -> dict[Path, str]:
    """Writes the files, and says of each what kept it from being written: "" where nothing did."""
    from lookalike.report import write_csv, write_html, write_parquet

    written: dict[Path, str] = {}
    with meter("reporting", len(report.groups), "groups") as advance:
        written[output] = _trouble(lambda: write_html(report, output, progress=advance))
    if csv_file is not None:
        written[csv_file] = _trouble(lambda: write_csv(report, csv_file))
    if parquet_file is not None:
        written[parquet_file] = _trouble(lambda: write_parquet(report, parquet_file))
    return written


def _trouble(write: Callable[[], None]) -> str:
    try:
        write()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _print_json(report: Report) -> None:
    from lookalike.report import write_json

    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "report.json")
        write_json(report, text)
        with text.open() as file:
            shutil.copyfileobj(file, sys.stdout)


def _summary(report: Report, outcome: Outcome) -> None:
    say(str(outcome))
    if report.sampled is not None:
        found, pairs = report.sampled
        say(
            "of so many photos only likely pairs were compared; they held "
            f"{found:,} of {pairs:,} pairs that an exact sample holds"
        )
    if report.split:
        say(f"{plural(report.split, 'photo')} kept out of a group that only a chain of copies joins them to")
    readable = report.photos_seen - len(report.unreadable)
    click.echo(
        f"{plural(readable, 'photo')}: {plural(len(report.groups), 'group')} of copies, "
        f"{plural(report.redundant, 'photo')} and {size(report.bytes_freed)} could go"
        if report.groups
        else f"{plural(readable, 'photo')}, no copies among them"
    )
