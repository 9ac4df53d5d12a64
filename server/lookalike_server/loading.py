"""Where settings come from: a TOML file, then the environment, then flags; the later one wins.

    lookalike.toml        max_k = 500           [recipes.mine] backbone = "resnet50" ...
    environment           LOOKALIKE_MAX_K=500
    flags                 --max-k 500

Whatever is wrong is told all at once, one line for each problem, each beginning with the place it came from.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lookalike_extractor.errors import did_you_mean
from pydantic import BaseModel, ValidationError

from lookalike_server.config import PATHS, RecipeTable, Settings, TapTable
from lookalike_server.errors import ConfigInvalid

PREFIX = "LOOKALIKE_"

_OF_THE_CLIENT = {"server", "config", "tls", "ca", "cert", "key", "token", "plaintext_token"}


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
    for key in PATHS:
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
    tables: dict[int, type[BaseModel]] = {1: Settings, 3: RecipeTable}
    return list(tables.get(len(loc), TapTable).model_fields)
