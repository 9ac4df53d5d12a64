"""`lookalike models`: the recipes and backbones of a server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lookalike.cli.connection import connect, place_options
from lookalike.cli.output import print_json, print_table

if TYPE_CHECKING:
    from lookalike.records import BackboneInfo, RecipeInfo


@click.command("models", short_help="List recipes and backbones.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@place_options
def command(as_json: bool, server: str | None, data: Path | None) -> None:
    """Lists the recipes that are computed, the default first, and the backbones that are known."""
    with connect(server, data) as client:
        recipes, backbones = client.recipes(), client.backbones()
    if as_json:
        print_json(
            {"recipes": [asdict(recipe) for recipe in recipes], "backbones": [asdict(b) for b in backbones]}
        )
        return
    _show_recipes(recipes)
    click.echo()
    _show_backbones(backbones)


def _show_recipes(recipes: list[RecipeInfo]) -> None:
    head = ["recipe", "backbone", "nodes", "input", "dimension", "duplicates from", "runs in"]
    rows = [
        [
            recipe.name,
            recipe.backbone,
            " + ".join(f"{tap.node} {tap.pooling}" for tap in recipe.taps),
            f"{recipe.input_height}x{recipe.input_width}",
            str(recipe.space.dimension),
            f"{recipe.duplicate_threshold:.3f}",
            recipe.runtime if recipe.ready else f"{recipe.runtime}, not ready",
        ]
        for recipe in recipes
    ]
    print_table(head, rows)


def _show_backbones(backbones: list[BackboneInfo]) -> None:
    rows = [[b.name, b.weights, "yes" if b.loaded else ""] for b in backbones]
    print_table(["backbone", "weights", "loaded"], rows)
