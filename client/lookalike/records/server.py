"""What a server tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

from lookalike.records.record import Record


@dataclass(frozen=True, slots=True, repr=False)
class EmbeddingSpace(Record):
    """A space in which descriptors may be compared: only those whose spaces' ids are equal."""

    id: str
    dimension: int
    metric: str
    """As "cosine": similarity from -1 to 1, higher is nearer."""
    recipe: str


@dataclass(frozen=True, slots=True, repr=False)
class Limits(Record):
    """The bounds a server enforces. `max_message_bytes` counts a whole message, either way."""

    max_images_per_message: int
    max_message_bytes: int
    max_image_bytes: int
    max_image_pixels: int
    max_k: int


@dataclass(frozen=True, slots=True, repr=False)
class ServerInfo(Record):
    version: str
    device: str
    """What computes descriptors, as "cpu" or "cuda:0"."""
    limits: Limits


@dataclass(frozen=True, slots=True, repr=False)
class TapInfo(Record):
    """One node of a backbone whose output a recipe pools."""

    node: str
    pooling: str


@dataclass(frozen=True, slots=True, repr=False)
class RecipeInfo(Record):
    """One named way from an image to a descriptor."""

    name: str
    backbone: str
    taps: tuple[TapInfo, ...]
    input_height: int
    input_width: int
    space: EmbeddingSpace
    duplicate_threshold: float
    """Least similarity of two images that are taken for copies of one picture unless told otherwise."""
    runtime: str = ""
    """What the backbone runs in, as "eager"; "" from a server that does not tell."""
    ready: bool = True
    """False while images do not come through."""


@dataclass(frozen=True, slots=True, repr=False)
class BackboneInfo(Record):
    name: str
    weights: str
    """Where the weights come from: "packaged", "download" or "none" (a checkpoint must be given)."""
    loaded: bool
    """Whether a recipe of the server uses it."""


@dataclass(frozen=True, slots=True, repr=False)
class NodeInfo(Record):
    """A named place in a backbone's graph."""

    name: str
    operation: str
    shape: tuple[int, ...]
    """Shape of the output for one image; empty where the output is not a tensor."""
    dtype: str
    stride: int
    """Input pixels for one step of the output's width; 0 where the output is not a feature map."""
    parameters: int
    flops: int
    cumulative_flops: int
    """Floating-point operations from the input up to this node, counting only what the node needs."""
