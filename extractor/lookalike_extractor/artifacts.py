"""Fitted whitening on disk: one safetensors file per fit, with where it comes from in its metadata.

    mean.N        float32 [c]      of the recipe's N-th tap
    projection.N  float16 [c, d]   scaled to a largest value of 1; lengths do not matter, an L2 follows
    spectrum.N    float32 [c]      for people

float16 halves the file and moves descriptors by less than a cosine of 1e-5. A fit is rounded before it is
used, so that what was measured is what is stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .errors import ArtifactInvalid, did_you_mean
from .whitening import Floats, Whitening

FORMAT = "lookalike.whitening.1"
_PACKAGED = "fitted"


@dataclass(frozen=True)
class Artifact:
    """A whitening for each tap of a recipe.

    Attributes:
        backbone: its name.
        weights_digest: of the backbone's weights that the features came from.
        taps: "node:pooling" of each, in the recipe's order.
        whitenings: one for each tap.
        facts: where the fit comes from, for people: photos, copies, families, seed, what it reached.
    """

    backbone: str
    weights_digest: str
    taps: tuple[str, ...]
    whitenings: tuple[Whitening, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dimension(self) -> int:
        """Of the joined descriptor."""
        return sum(whitening.projection.shape[1] for whitening in self.whitenings)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of all that shapes a descriptor; facts do not."""
        hashed = hashlib.sha256("\n".join([FORMAT, *self.taps]).encode())
        for whitening in self.whitenings:
            for array in (whitening.mean, whitening.projection):
                hashed.update(repr(array.shape).encode() + array.astype("<f4").tobytes())
        return hashed.hexdigest()

    def whiten(self, parts: Sequence[Floats]) -> list[Floats]:
        """Pooled features [n, c] of each tap -> [n, d] of each, rows of length 1."""
        return [whitening(part) for whitening, part in zip(self.whitenings, parts, strict=True)]

    def check(self, backbone: str, weights_digest: str, taps: Sequence[str]) -> None:
        """Raises ArtifactInvalid unless it was fitted for this backbone, these weights and these taps."""
        for what, own, asked in (
            ("backbone", self.backbone, backbone),
            ("taps", ", ".join(self.taps), ", ".join(taps)),
            ("weights", self.weights_digest[:12], weights_digest[:12]),
        ):
            if own != asked:
                raise ArtifactInvalid(
                    f"the whitening was fitted for the {what} {own}, the recipe has {asked}; fit it again"
                )


def rounded(whitening: Whitening) -> Whitening:
    """As it will be after save and load."""
    projection = whitening.projection / np.abs(whitening.projection).max()
    return Whitening(
        whitening.mean,
        projection.astype(np.float16).astype(np.float32),
        whitening.spectrum,
        whitening.ridge,
        whitening.samples,
    )


def save_artifact(artifact: Artifact, path: Path) -> None:
    """Writes the file. The same artifact gives the same bytes."""
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for number, whitening in enumerate(artifact.whitenings):
        tensors[f"mean.{number}"] = whitening.mean
        tensors[f"projection.{number}"] = np.ascontiguousarray(whitening.projection.astype(np.float16))
        tensors[f"spectrum.{number}"] = whitening.spectrum
    about = {
        "format": FORMAT,
        "backbone": artifact.backbone,
        "weights_digest": artifact.weights_digest,
        "taps": list(artifact.taps),
        "ridges": [whitening.ridge for whitening in artifact.whitenings],
        "samples": [whitening.samples for whitening in artifact.whitenings],
        "facts": dict(artifact.facts),
        "digest": artifact.digest,
    }
    save_file(tensors, path, {"lookalike": json.dumps(about, sort_keys=True)})


def load_artifact(name: str) -> Artifact:
    """Reads an artifact.

    Args:
        name: of a packaged artifact (packaged_artifacts()), else the path of a file.

    Raises:
        ArtifactInvalid: no such file, not an artifact, or damaged.
    """
    path = _path(name)
    try:
        with safe_open(path, "numpy") as stored:
            about = json.loads((stored.metadata() or {})["lookalike"])
            if about["format"] != FORMAT:
                raise ArtifactInvalid(
                    f"{path} has the format {about['format']!r}; this version reads {FORMAT!r}"
                )
            artifact = Artifact(
                about["backbone"],
                about["weights_digest"],
                tuple(about["taps"]),
                tuple(
                    Whitening(
                        stored.get_tensor(f"mean.{number}"),
                        stored.get_tensor(f"projection.{number}").astype(np.float32),
                        stored.get_tensor(f"spectrum.{number}"),
                        about["ridges"][number],
                        about["samples"][number],
                    )
                    for number in range(len(about["taps"]))
                ),
                about["facts"],
            )
    except (OSError, SafetensorError, KeyError, IndexError, ValueError) as error:
        raise ArtifactInvalid(f"{path} is no fitted whitening, or it is damaged: {error!r}") from error
    if artifact.digest != about["digest"]:
        raise ArtifactInvalid(f"{path} is damaged: its content does not have the digest it was stored with")
    return artifact


def packaged_artifacts() -> dict[str, Path]:
    """The artifacts that come with the package, by name."""
    folder = Path(str(files("lookalike_extractor") / _PACKAGED))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def _path(name: str) -> Path:
    packaged = packaged_artifacts()
    path = packaged.get(name, Path(name))
    if not path.is_file():
        raise ArtifactInvalid(
            f"there is no fitted whitening {name!r}, neither as a file nor in the package."
            f"{did_you_mean(name, packaged)} `lookalike fit` makes one."
        )
    return path
