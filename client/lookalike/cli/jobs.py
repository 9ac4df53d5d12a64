"""`lookalike jobs`: the searches for duplicates of a server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.cli.connection import connect, place_options
from lookalike.cli.meter import meter
from lookalike.cli.output import interruptible, plural, print_json, print_table, say

if TYPE_CHECKING:
    from lookalike.records import DuplicateJob


@click.group("jobs", short_help="List, watch, cancel or delete searches for duplicates.")
def command() -> None:
    """Searches for duplicates go on when the command that started them has ended, and when the server is
    started again.
    """


@command.command("list")
@click.option("-c", "--collection", default="", metavar="NAME", help="Only those of this collection.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@place_options
def list_(collection: str, as_json: bool, server: str | None, data: Path | None) -> None:
    """Lists the searches, in the order in which they were started."""
    with connect(server, data) as client:
        jobs = client.jobs.all(collection)
    if as_json:
        print_json([_plain(job) for job in jobs])
    elif not jobs:
        say("there are no searches for duplicates")
    else:
        head = ["id", "collection", "state", "items", "groups", "started (UTC)"]
        print_table(head, [_row(job) for job in jobs])


@command.command("watch")
@click.argument("job_id", metavar="ID")
@place_options
def watch(job_id: str, server: str | None, data: Path | None) -> None:
    """Shows how far a search is until it has ended. Ctrl-C ends the watching, not the search."""
    with (
        connect(server, data) as client,
        interruptible("the search goes on"),
        meter("comparing", client.jobs.get(job_id).items_total, "items") as advance,
    ):
        job = client.jobs.wait(job_id, lambda now: advance(now.items_done, now.items_total))
    click.echo(f"{plural(job.items_total, 'item')}: {plural(job.group_count, 'group')} of copies")


@command.command("cancel")
@click.argument("job_id", metavar="ID")
@place_options
def cancel(job_id: str, server: str | None, data: Path | None) -> None:
    """Stops a search; one that has ended stays as it is."""
    with connect(server, data) as client:
        client.jobs.cancel(job_id)
    say(f"cancelled {job_id}")


@command.command("delete")
@click.argument("job_id", metavar="ID")
@place_options
def delete(job_id: str, server: str | None, data: Path | None) -> None:
    """Deletes a search that has ended, and the groups it found. No item and no photo is touched."""
    with connect(server, data) as client:
        client.jobs.delete(job_id)
    say(f"deleted {job_id}")


def _row(job: DuplicateJob) -> list[str]:
    state = job.state
    if job.remaining is not None and state == "running":
        state = f"running, {job.remaining:,.0f} s left"
    started = f"{job.created:%Y-%m-%d %H:%M}" if job.created else ""
    return [job.id, job.collection, state, f"{job.items_total:,}", f"{job.group_count:,}", started]


def _plain(job: DuplicateJob) -> dict[str, Any]:
    times = {"created": job.created, "ended": job.ended}
    return asdict(job) | {name: time and time.isoformat() for name, time in times.items()}
