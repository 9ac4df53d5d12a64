"""`lookalike token`: what clients show to a server that asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lookalike.cli.output import say
from lookalike.errors import ExtraMissing

if TYPE_CHECKING:
    from types import ModuleType


@click.group("token", short_help="Make tokens for a server's clients.")
def command() -> None:
    """Tokens let clients in to a server that has a token_file."""


@command.command("new", short_help="Make a token.")
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(["read", "write"]),
    default="read",
    show_default=True,
    help="read: calls that change nothing; write: all calls.",
)
@click.option(
    "--images-per-second",
    type=click.FloatRange(0, min_open=True),
    help="That its clients may send.  [default: no limit]",
)
@click.option(
    "--images-in-flight", type=click.IntRange(1), help="At work or waiting at once.  [default: no limit]"
)
def new(name: str, scope: str, **limits: float | None) -> None:
    """Prints a new token, which is kept nowhere, and the line for the server's token_file."""
    tokens = _tokens()
    try:
        token, line = tokens.new_token(name, scope, {k: v for k, v in limits.items() if v is not None})
    except tokens.ConfigInvalid:
        raise click.BadParameter(
            "use 1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit",
            param_hint="NAME",
        ) from None
    say(f"the token, for the client ({name}); it is shown only now:")
    click.echo(token)
    say("the line for the server's token_file:")
    click.echo(line)


def _tokens() -> ModuleType:
    try:
        from lookalike_server import tokens
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            f"the server is not installed: pip install 'lookalike[server]' ({error})"
        ) from None
    return tokens
