"""`lookalike bench`: how fast a server answers."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.cli.connection import access_given, connect, place_options
from lookalike.cli.output import interruptible, list_failures, plural, print_json, print_table

if TYPE_CHECKING:
    from lookalike.bench import Load, Result

# Enough that their sizes mix, few enough to be held in memory.
_MOST_PHOTOS = 256


@click.command("bench", short_help="Measure how fast a server answers.")
@click.argument("photos", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--callers",
    default=8,
    show_default=True,
    type=click.IntRange(1, 4096),
    help="Closed loop: so many at once.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Open loop: images a second, whether answered or not.",
)
@click.option("--images", default=1, show_default=True, type=click.IntRange(1), help="Images of a call.")
@click.option(
    "--seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="To measure for.",
)
@click.option(
    "--timeout",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds that a call may take.",
)
@click.option("--recipe", default="", help="To ask for.  [default: the server's first]")
@click.option("--cached", is_flag=True, help="Send the same bytes again: results may be remembered.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@place_options
def command(
    photos: tuple[Path, ...], server: str | None, data: Path | None, as_json: bool, **wishes: Any
) -> int:
    """Asks a server for descriptors of PHOTOS (files and folders; without any, of made pictures).

    Without --rate, --callers send one call after the other: what the server can do. With --rate, calls leave
    at random times at that rate, and latency counts from when each was meant to leave: what strangers see.
    Nothing is tried again. Without --server it measures an engine inside this command.
    """
    from lookalike._connection import Access
    from lookalike.bench import Load, measure

    files = _files(photos)
    load = Load(**wishes)
    with connect(server, data) as client, interruptible("nothing was changed"):
        access = Access(client.target, **(access_given() if server else {}))
        result = asyncio.run(measure(access, files, load))
    if as_json:
        print_json(_facts(load, result))
    else:
        _show(load, result)
    return 0 if result.images else 1


def _files(photos: tuple[Path, ...]) -> list[bytes]:
    from lookalike.bench import made_pictures
    from lookalike.cli.photos import find_photos

    if not photos:
        return made_pictures()
    found = find_photos(photos)
    list_failures(found.unreadable)
    return [photo.path.read_bytes() for photo in found.photos[:_MOST_PHOTOS]]


def _facts(load: Load, result: Result) -> dict[str, Any]:
    return {
        "loop": "closed" if load.rate is None else "open",
        "load": asdict(load),
        "calls": len(result.latencies),
        "images": result.images,
        "images_per_second": result.images_per_second,
        "latency_ms": result.milliseconds(),
        "errors": dict(result.errors),
        "client_cpu": result.client_cpu,
    }


def _show(load: Load, result: Result) -> None:
    loop = f"{load.callers} callers" if load.rate is None else f"{load.rate:g} images/s were asked for"
    click.echo(f"{loop}, {plural(load.images, 'image')} a call, {result.seconds:g} s")
    click.echo(f"{result.images_per_second:,.1f} images/s; this program took {result.client_cpu:.2f} cores")
    times = result.milliseconds()
    if times:
        calls = f"{len(result.latencies):,}"
        print_table([*times, "calls"], [[*(f"{ms:.1f} ms" for ms in times.values()), calls]])
    if result.errors:
        print_table(["failed", "how often"], [[k, f"{n:,}"] for k, n in result.errors.most_common()])
