"""`lookalike nodes`: what can be extracted from a backbone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from lookalike.cli.connection import connect, place_options
from lookalike.cli.output import print_json, print_table, short_number


@click.command("nodes", short_help="List what can be extracted from a backbone.")
@click.argument("backbone")
@click.option("--json", "as_json", is_flag=True, help="Print the nodes as JSON.")
@place_options
def command(backbone: str, as_json: bool, server: str | None, data: Path | None) -> None:
    """Lists the nodes of BACKBONE in the order of execution, with shapes, strides and cost."""
    with connect(server, data) as client:
        nodes = client.nodes(backbone)
    if as_json:
        print_json([asdict(node) for node in nodes])
        return
    head = ["node", "operation", "shape", "stride", "params", "flops", "flops to here"]
    rows = [
        [
            node.name,
            node.operation,
            "x".join(map(str, node.shape)) or "-",
            str(node.stride or "-"),
            short_number(node.parameters),
            short_number(node.flops),
            short_number(node.cumulative_flops),
        ]
        for node in nodes
    ]
    print_table(head, rows)
