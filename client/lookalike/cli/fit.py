"""`lookalike fit`: a recipe's whitening, learned from the user's own photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lookalike.cli.meter import meter
from lookalike.cli.output import check_place, interruptible, list_failures, plural, print_json, say, shown
from lookalike.records import Failure


@click.command("fit", short_help="Fit a recipe to photos of your own.")
@click.option("--recipe", default="near_duplicate", show_default=True, help="To fit.")
@click.option(
    "--images",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of distinct photos; a few hundred are enough.",
)
@click.option(
    "--copies", default=3, show_default=True, type=click.IntRange(1, 20), help="Made of each photo."
)
@click.option(
    "--dimension",
    default=256,
    show_default=True,
    type=click.IntRange(8, 1024),
    help="Of each node's part of a descriptor.",
)
@click.option("--seed", default=0, show_default=True, help="Of the copies; one seed gives one fit.")
@click.option(
    "-o",
    "--output",
    default=Path("fitted.safetensors"),
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The fit.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what the fit reached as JSON.")
def command(
    recipe: str, images: Path, copies: int, dimension: int, seed: int, output: Path, as_json: bool
) -> None:
    """Makes copies of photos, as people make them, and learns from them which differences between pictures
    matter. One photo in five is kept out and tries the fit; a fit that would harm is refused.

    Runs on this machine, without a server. The file that it writes goes into a recipe's `whitening`.
    """
    from lookalike.cli.photos import find_photos

    found = find_photos([images])
    check_place(output)
    fit = _fit(recipe, [photo.path for photo in found.photos], copies, dimension, seed, output)
    unreadable = [Failure(str(path), "", "IMAGE_INVALID", why) for path, why in fit.unreadable.items()]
    list_failures([*found.unreadable, *unreadable])
    facts = fit.artifact.facts
    say(
        f"fitted {recipe} to {plural(facts['photos'], 'photo')}; of copies of photos kept out, "
        f"{facts['found_after']:.1%} find their original first, {facts['found_before']:.1%} without the fit; "
        f"wrote {shown(output)}"
    )
    if as_json:
        print_json({"output": shown(output), "digest": fit.artifact.digest, **facts})


def _fit(recipe: str, paths: list[Path], copies: int, dimension: int, seed: int, output: Path) -> Any:
    try:
        from lookalike_extractor.artifacts import save_artifact
        from lookalike_extractor.errors import LookalikeError, did_you_mean
        from lookalike_extractor.fitting import FitSettings, fit_recipe
        from lookalike_extractor.recipe import RECIPES
    except ImportError as error:
        raise click.ClickException(f"{error}; run: pip install 'lookalike[extractor]'") from error
    if recipe not in RECIPES:
        known = ", ".join(RECIPES)
        raise click.UsageError(
            f"there is no recipe {recipe!r}; there are {known}.{did_you_mean(recipe, RECIPES)}"
        )
    settings = FitSettings(copies=copies, dimension=dimension, seed=seed)
    try:
        with (
            interruptible("nothing was written"),
            meter("fitting", len(paths) * (copies + 1), "pictures") as advance,
        ):
            fit = fit_recipe(RECIPES[recipe], paths, settings, advance)
        save_artifact(fit.artifact, output)
    except LookalikeError as error:
        raise click.ClickException(error.message) from error
    return fit
