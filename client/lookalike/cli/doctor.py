"""`lookalike doctor`: whether this installation can serve."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.cli.output import fail, print_json
from lookalike.cli.serve import setting_options
from lookalike.errors import ExtraMissing

if TYPE_CHECKING:
    from lookalike_server.doctor import Finding

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command("doctor", short_help="Check whether this installation can serve.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@setting_options
def command(as_json: bool, config: Path | None, recipes: str | None, **flags: Any) -> int:
    """Checks packages, machine, data folder, address and files, and sends one image the whole way.

    Give it the settings that the server gets. Each line is ok, warn or fail, and says what to do. Exits with
    1 when something fails.
    """
    try:
        from lookalike_server.doctor import examine
        from lookalike_server.errors import ConfigInvalid
        from lookalike_server.loading import load_settings
    except ModuleNotFoundError as error:
        raise ExtraMissing(f"no server is installed: pip install 'lookalike[server]' ({error})") from None
    try:
        settings = load_settings({**flags, "served_recipes": recipes}, config)
    except ConfigInvalid as error:
        return fail(str(error), 2)
    findings = []
    for finding in examine(settings):
        findings.append(finding)
        if not as_json:
            _show(finding)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    return 1 if any(finding.state == "fail" for finding in findings) else 0


def _show(finding: Finding) -> None:
    state = click.style(f"{finding.state:5s}", fg=_COLOURS[finding.state])
    click.echo(f"{state}{finding.check:13s}{finding.message}")
    if finding.advice:
        click.echo(f"{'':18s}{finding.advice}")
