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


_META = "lookalike.access"
_NAMES = {"cert": "certificate"}
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def place_options(command: Command) -> Command:
    """Adds --server and --data, and what a server may ask of its clients."""
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
    return server(access_options(data(command)))


def access_options(command: Command) -> Command:
    """Adds --tls, --ca, --cert, --key, --token and --plaintext-token; `access_given` collects them."""
    options = [
        _access("tls", is_flag=True, default=None, help="Encrypt; trust the system's authorities."),
        _access("ca", type=_FILE, help="Certificates (PEM) to trust instead; means --tls."),
        _access("cert", type=_FILE, help="The client's own certificate (PEM), where one is asked for."),
        _access("key", type=_FILE, help="The key of --cert (PEM)."),
        _access("token", metavar="TOKEN", help="Token to show; better in the environment than here."),
        _access("plaintext-token", is_flag=True, default=None, help="Send the token without encryption."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _access(name: str, **options: Any) -> Callable[[Command], Command]:
    """An option that no command sees: `access_given` finds it in the context."""

    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value is not None:
            context.meta.setdefault(_META, {})[_NAMES.get(name, name.replace("-", "_"))] = value

    variable = "LOOKALIKE_" + name.upper().replace("-", "_")
    return click.option(
        f"--{name}", envvar=variable, show_envvar=True, expose_value=False, callback=keep, **options
    )


def access_given() -> dict[str, Any]:
    """The arguments of Client that the access options of this command gave."""
    given: dict[str, Any] = click.get_current_context().meta.get(_META, {})
    return given


@contextmanager
def connect(server: str | None, data: Path | None, images: int = 0) -> Iterator[Client]:
    """A client of the server, or of an engine of our own for about so many images.

    A flag wins over the environment.
    """
    from lookalike import Client

    if data is not None and server is not None:
        if click.get_current_context().get_parameter_source("server") is not ParameterSource.ENVIRONMENT:
            raise click.UsageError("--data is the folder of an engine without --server: give one of the two")
        server = None
    if server is not None:
        with Client(server, **access_given()) as client:
            yield client
        return
    with interruptible("nothing was changed"), waiting("starting the engine"):
        client = Client.embedded(data, images=images)
    with client:
        yield client
