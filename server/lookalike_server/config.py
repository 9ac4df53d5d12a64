"""Settings of the server: a TOML file, then the environment, then flags; the later one wins.

    lookalike.toml        max_k = 500           [recipes.mine] backbone = "resnet50" ...
    environment           LOOKALIKE_MAX_K=500
    flags                 --max-k 500

Whatever is wrong is told all at once, one line for each problem, each beginning with the place it came from.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import platformdirs
from lookalike_extractor.errors import did_you_mean
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from lookalike_server.errors import ConfigInvalid

PREFIX = "LOOKALIKE_"
MIB = 1 << 20

_OF_THE_CLIENT = {"server", "config", "tls", "ca", "cert", "key", "token", "plaintext_token"}

_PATHS = ("data", "tls_certificate", "tls_key", "tls_client_ca", "token_file")


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


def _split(value: object) -> object:
    """Lists come from the environment and from flags as text with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Settings(_Table):
    """All settings of a server. Frozen."""

    address: str = "127.0.0.1:50051"
    """Where to listen: HOST:PORT (port 0 takes a free one) or unix:PATH."""
    data: Path = Field(default_factory=lambda: platformdirs.user_data_path("lookalike"))
    """Folder of the collections; made when it is not there."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """"auto" takes the first GPU, or the CPU when there is none."""
    served_recipes: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    """Names of the recipes to compute, the default one first. Empty: the built-in ones, then `recipes`."""
    recipes: dict[str, RecipeTable] = {}
    """The user's own recipes by name."""

    max_message_bytes: int = Field(64 * MIB, ge=MIB, le=1024 * MIB)
    max_images_per_message: int = Field(256, ge=1, le=65_536)
    max_image_bytes: int = Field(32 * MIB, ge=1024)
    max_image_pixels: int = Field(100_000_000, ge=1024)
    max_k: int = Field(1000, ge=1, le=100_000)

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
    torch_threads: int = Field(0, ge=0, le=1024)
    """Threads of the model on the CPU. 0: the cores of the machine."""
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

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        if value.startswith("unix:") and len(value) > len("unix:"):
            return value
        host, _, port = value.rpartition(":")
        if not host or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65_535:
            raise ValueError("must be HOST:PORT, as 127.0.0.1:50051, or unix:PATH")
        return value

    @field_validator(*_PATHS)
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
        return self


def _stays_here(address: str) -> bool:
    """Whether only this machine reaches the address."""
    host = address.rpartition(":")[0].strip("[]")
    return address.startswith("unix:") or host == "localhost" or host.startswith("127.") or host == "::1"


def load_settings(
    flags: Mapping[str, Any] | None = None,
    config: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Returns the settings from a TOML file, the environment and flags, the later ones winning.

    Args:
        flags: values by field name; None counts as not given.
        config: the TOML file; None means no file. Relative paths in it are relative to it.
        environ: the environment; None means the process's own.

    Raises ConfigInvalid, with a line for each problem.
    """
    file = _read(Path(config)) if config is not None else {}
    environment = _of_environment(os.environ if environ is None else environ)
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    origins = {key: f"{config}: {key}" for key in file}
    origins |= {key: PREFIX + key.upper() for key in environment}
    origins |= {key: "--" + key.replace("_", "-") for key in given}
    try:
        return Settings.model_validate({**file, **environment, **given})
    except ValidationError as error:
        problems = [_line(problem, origins) for problem in error.errors()]
        raise ConfigInvalid("\n".join(problems)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigInvalid(f"{path}: there is no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{path}: cannot be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"{path}: is not TOML: {error}.") from None
    for key in _PATHS:
        _anchor(table, key, path.parent)
    recipes = table.get("recipes")
    for recipe in recipes.values() if isinstance(recipes, dict) else ():
        _anchor(recipe, "weights", path.parent)
        # A name without an ending is that of a fit that comes with the package.
        if isinstance(recipe, dict) and Path(str(recipe.get("whitening"))).suffix:
            _anchor(recipe, "whitening", path.parent)
    return table


def _anchor(table: object, key: str, folder: Path) -> None:
    """Makes a relative path of a file relative to that file."""
    if isinstance(table, dict) and isinstance(table.get(key), str):
        table[key] = str(folder.absolute() / Path(table[key]).expanduser())


def _of_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings among the variables.

    A name that is only like a setting's is taken for a slip. Others are left alone: they are the client's, or
    those that Kubernetes sets for a service named "lookalike".
    """
    names = {name.removeprefix(PREFIX).lower() for name in environ if name.startswith(PREFIX)}
    for name in sorted(names - set(Settings.model_fields) - _OF_THE_CLIENT):
        near = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.8)
        if near:
            raise ConfigInvalid(
                f"{PREFIX}{name.upper()}: no such setting. Did you mean {PREFIX}{near[0].upper()}?"
            )
    return {name: environ[PREFIX + name.upper()] for name in names & set(Settings.model_fields)}


def _line(problem: Any, origins: Mapping[str, str]) -> str:
    if not problem["loc"]:  # of settings that do not go together
        return f"{problem['msg'].removeprefix('Value error, ')}."
    top, *path = (str(part) for part in problem["loc"])
    place = ".".join([origins.get(top, top), *path])
    if problem["type"] == "extra_forbidden":
        return f"{place}: no such setting.{did_you_mean(str(problem['loc'][-1]), _known(problem['loc']))}"
    if problem["type"] == "missing":
        return f"{place}: is missing."
    fault = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{place}: {fault}, not {problem['input']!r}."


def _known(loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the table in which an unknown key stands."""
    tables: dict[int, type[_Table]] = {1: Settings, 3: RecipeTable}
    return list(tables.get(len(loc), TapTable).model_fields)
