"""`lookalike serve`: the gRPC server."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lookalike.cli.output import fail
from lookalike.errors import ExtraMissing

Command = TypeVar("Command", bound=Callable[..., Any])

_SETTINGS = (
    click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings."),
    click.option(
        "--address", metavar="HOST:PORT", help="Where to listen; or unix:PATH.  [default: 127.0.0.1:50051]"
    ),
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        help="Folder of the collections.  [default: the user's data directory]",
    ),
    click.option(
        "--device", metavar="DEVICE", help="auto, cpu, cuda, or GPUs as cuda:0,cuda:1.  [default: auto]"
    ),
    click.option(
        "--recipes", metavar="A,B", help="Recipes to compute; the first is the default.  [default: all]"
    ),
)


def setting_options(command: Command) -> Command:
    """Adds the settings of a server that have a flag."""
    for option in reversed(_SETTINGS):
        command = option(command)
    return command


@click.command("serve", short_help="Run the gRPC server.")
@setting_options
def command(config: Path | None, recipes: str | None, **flags: Any) -> int:
    """Serves descriptors, collections, search and duplicates over gRPC until SIGTERM or Ctrl-C.

    Every setting can also be given in the environment, as LOOKALIKE_MAX_K=500.
    """
    try:
        import lookalike_server.loading
        from lookalike_extractor.errors import LookalikeError
        from lookalike_server.apart.process import start_early
        from lookalike_server.directory import check
        from lookalike_server.errors import ConfigInvalid
        from lookalike_server.own_process import before_torch, leave
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            f"the server is not installed: pip install 'lookalike[server]' ({error})"
        ) from None

    def read() -> lookalike_server.config.Settings:
        return lookalike_server.loading.load_settings({**flags, "served_recipes": recipes}, config)

    try:
        settings = read()
        check(settings.data)
    except LookalikeError as error:
        return fail(str(error), 2 if isinstance(error, ConfigInvalid) else 1)
    if sys.stderr.isatty():
        print("Loading models and trying runtimes; a line tells when it serves.", file=sys.stderr)
    before_torch()
    start_early(settings)
    from lookalike_server.app import serve  # here, because a wrong flag needs no torch

    return leave(serve(settings, read))
