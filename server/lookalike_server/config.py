"""The settings of a server, each with its default and its bounds. See loading.py for where they come from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

import platformdirs
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

MIB = 1 << 20


PATHS = ("data", "face_weights", "tls_certificate", "tls_key", "tls_client_ca", "token_file")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TapTable(_Table):
    """`{node = "layer4", pooling = "gem", p = 3.0}`."""

    node: str
    pooling: Literal["avg", "max", "gem", "rgem", "rmac", "cls", "tokens"] = "gem"
    p: float = Field(3.0, gt=0)


class RecipeTable(_Table):
    """A recipe of the user's own, as `[recipes.mine]`."""

    backbone: str
    taps: tuple[TapTable, ...]
    weights: Path | None = None
    """Checkpoint to load; relative to the file that names it. None: the backbone's own weights."""
    input_size: tuple[int, int] | None = None
    """Height and width in pixels. None: the backbone's own."""
    resize: Literal["squash", "crop"] | None = None
    duplicate_threshold: float = Field(0.9, ge=-1, le=1)
    whitening: str | None = None
    """A fit that comes with the package, by name, or a file that `lookalike fit` wrote. None: none."""
    l2_radius: float | None = Field(None, gt=0, le=1e6)
    """Of the sphere that descriptors are put on where Euclidean distances count. None: length 1."""


def _split(value: object) -> object:
    """Lists come from the environment and from flags as text with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Settings(_Table):
    """All settings of a server. Frozen."""

    address: str = "127.0.0.1:50051"
    """Where to listen: HOST:PORT (port 0 takes a free one) or unix:PATH."""
    data: Path = Field(default_factory=lambda: platformdirs.user_data_path("lookalike"))
    """Folder of the collections; made when it is not there."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?(, *cuda(:\d+)?)*)$")
    """"auto" takes the first GPU, or the CPU when there is none; several GPUs have commas between."""
    replicas: int = Field(1, ge=1, le=64)
    """Copies of the models on each device, each with a thread that computes batches beside the others."""
    runtime: Literal[
        "auto",
        "eager",
        "eager-bf16",
        "graphs",
        "graphs-bf16",
        "compile",
        "compile-bf16",
        "openvino",
        "openvino-bf16",
    ] = "auto"
    """What the models run in. "auto" tries what is there for a few seconds; "eager" is torch in float32."""
    model_process: bool = True
    """Models on the CPU compute in a process of their own, which is faster; each replica has one."""
    served_recipes: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    """Names of the recipes to compute, the default one first. Empty: the built-in ones, then `recipes`."""
    face_weights: Path | None = None
    """File that `lookalike faces fetch` wrote; it makes the recipe `face` available. None: there is none."""
    recipes: dict[str, RecipeTable] = {}
    """The user's own recipes by name."""

    max_message_bytes: int = Field(64 * MIB, ge=MIB, le=1024 * MIB)
    max_connections: int = Field(4096, ge=1, le=1_000_000)
    """Clients that may be connected at once; one more is turned away."""
    max_images_per_message: int = Field(256, ge=1, le=65_536)
    max_image_bytes: int = Field(32 * MIB, ge=1024)
    max_image_pixels: int = Field(100_000_000, ge=1024)
    max_k: int = Field(1000, ge=1, le=100_000)

    max_calls: int = Field(1024, ge=1)
    """Calls at once. What was sent and not read yet is bounded by this times max_message_bytes."""
    front_ends: int = Field(0, ge=0, le=64)
    """Processes that speak gRPC for this one, each with as much not read yet. 0: it does so itself."""
    max_batch: int = Field(32, ge=1, le=4096)
    """Most images of one pass through a model."""
    queue_images: int = Field(1024, ge=1)
    """Images on their way through the engine before callers are told to come back or made to wait."""
    queue_bytes: int = Field(256 * MIB, ge=MIB)
    """Bytes of those images, as they were sent and as they are decoded."""
    cache_bytes: int = Field(64 * MIB, ge=0)
    """Descriptors kept by the digest of their image. 0: every image is computed, identical ones too."""
    max_call_seconds: float = Field(300.0, gt=0)
    """After which a call that is not a stream ends, whatever its own deadline."""
    canary_seconds: float = Field(15.0, gt=0)
    """How long a model may be without work before an image of our own is sent through it."""
    stall_seconds: float = Field(60.0, gt=0)
    """How long one batch may take before the device is taken to hang and callers are sent away."""
    decode_threads: int = Field(0, ge=0, le=1024)
    """0: as many as the cores allow beside the model's threads."""
    gpu_decode: bool = False
    """A CUDA device decodes ordinary JPEGs that need no scaling; the threads decode the rest."""
    torch_threads: int = Field(0, ge=0, le=1024)
    """Threads of each replica on the CPU. 0: the cores of the machine, shared by the replicas."""
    drain_seconds: float = Field(30.0, ge=0)
    """How long calls in flight may take to end once the server was told to stop."""

    tls_certificate: Path | None = None
    """PEM file: the server's certificate, then those between it and its authority. None: no encryption."""
    tls_key: Path | None = None
    """PEM file with the key of `tls_certificate`, without a passphrase."""
    tls_client_ca: Path | None = None
    """PEM file: clients must show a certificate that one of these signed. None: they show none."""

    token_file: Path | None = None
    """Lines that `lookalike token new` printed; calls then need a token. None: everybody may call."""
    plaintext_tokens: bool = False
    """Takes tokens without encryption from other machines, as behind a proxy that encrypts."""

    metrics_address: str | None = None
    """HOST:PORT where Prometheus finds /metrics. None: nowhere."""
    admin_address: str | None = None
    """unix:PATH of the admin socket, which only this user can open. None: there is none."""
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """Least weight of a line; at "info" there is one for each call."""
    traces: bool = False
    """Makes spans with OpenTelemetry, of the extra `traces`."""

    @field_validator("address", "metrics_address", "admin_address")
    @classmethod
    def _address(cls, value: str | None, info: ValidationInfo) -> str | None:
        name = info.field_name
        if value is None or (name != "metrics_address" and value.startswith("unix:") and len(value) > 5):
            return value
        if name == "admin_address":
            raise ValueError("must be unix:PATH")
        host, _, port = value.rpartition(":")
        if not host or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65_535:
            raise ValueError("must be HOST:PORT, as 127.0.0.1:50051, or unix:PATH")
        return value

    @field_validator(*PATHS)
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together; set both or neither")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca asks for tls_certificate and tls_key")
        if self.token_file is not None and not (
            self.tls_certificate is not None or self.plaintext_tokens or _stays_here(self.address)
        ):
            raise ValueError(
                f"token_file: on {self.address} everyone on the way could read the tokens; set "
                "tls_certificate and tls_key, or plaintext_tokens where something else encrypts"
            )
        if self.front_ends and self.address.startswith("unix:"):
            raise ValueError(
                f"front_ends: processes cannot share {self.address}; "
                "listen on HOST:PORT, or set front_ends to 0"
            )
        return self


def _stays_here(address: str) -> bool:
    """Whether only this machine reaches the address."""
    host = address.rpartition(":")[0].strip("[]")
    return address.startswith("unix:") or host == "localhost" or host.startswith("127.") or host == "::1"
