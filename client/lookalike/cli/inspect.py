"""`lookalike inspect`: what a node of a backbone sees in a photo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from PIL import Image


@click.command("inspect", short_help="Draw what a node of a backbone sees in a photo.")
@click.argument("photo", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--node", required=True, help="Node, as `lookalike nodes BACKBONE` lists them.")
@click.option("--backbone", default="efficientnet_lite0", show_default=True, help="Network.")
@click.option(
    "--weights", type=click.Path(exists=True, dir_okay=False), help="Checkpoint.  [default: its own]"
)
@click.option(
    "--channels", default=8, show_default=True, type=click.IntRange(1, 256), help="Channels to draw."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Picture to write.  [default: PHOTO.NODE.png]",
)
def command(
    photo: Path, node: str, backbone: str, weights: str | None, channels: int, output: Path | None
) -> None:
    """Writes a picture of the feature maps that --node yields for PHOTO.

    First the photo as the network takes it, and the map's first three principal components as red, green and
    blue; then the strongest channels. It runs here, without a server.
    """
    output = output or Path(f"{photo.stem}.{node}.png")
    picture = _draw(photo, node, backbone, weights, channels)
    try:
        picture.save(output)
    except ValueError:
        raise click.BadParameter(
            f"{output} has no ending of an image, as .png", param_hint="--output"
        ) from None
    click.echo(str(output))


def _draw(photo: Path, node: str, backbone: str, weights: str | None, channels: int) -> Image.Image:
    try:
        from lookalike_extractor.errors import ImageError, LookalikeError
        from lookalike_extractor.feature_maps import inspect_image
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"this command needs {error.name}: pip install 'lookalike[cli,extractor]'"
        ) from None
    try:
        return inspect_image(photo.read_bytes(), node, backbone, weights, channels)
    except ImageError as error:
        raise click.ClickException(f"{photo}: {error}") from None
    except LookalikeError as error:
        raise click.UsageError(str(error)) from None
