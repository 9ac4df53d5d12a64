"""Where a command works: on a server, or on an engine of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from lookalike.cli.meter import waiting
from lookalike.cli.output import interruptible

if TYPE_CHECKING:
    from lookalike import Client

Command = TypeVar("Command", bound=Callable[..., Any])


def place_options(command: Command) -> Command:
    """Adds --server and --data."""
    server = click.option(
        "--server",
        metavar="HOST:PORT",
        envvar="LOOKALIKE_SERVER",
        show_envvar=True,
        help="Server to work on. Without one, an engine inside this command does the work.",
    )
    data = click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder where the engine keeps its collections.  [default: the user's data directory]",
    )
    return server(data(command))


@contextmanager
def connect(server: str | None, data: Path | None) -> Iterator[Client]:
    """A client of the server, or of an engine of our own. A flag wins over the environment."""
    from lookalike import Client

    if data is not None and server is not None:
        if click.get_current_context().get_parameter_source("server") is not ParameterSource.ENVIRONMENT:
            raise click.UsageError("--data is the folder of an engine without --server: give one of the two")
        server = None
    if server is not None:
        with Client(server) as client:
            yield client
        return
    with interruptible("nothing was changed"), waiting("starting the engine"):
        client = Client.embedded(data)
    with client:
        yield client
