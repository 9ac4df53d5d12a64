"""The `lookalike` command: its subcommands, and what each error becomes."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

import click

from lookalike import errors
from lookalike.cli.output import Interrupted, fail, say

_COMMANDS = (
    "duplicates",
    "index",
    "reembed",
    "search",
    "embed",
    "serve",
    "nodes",
    "inspect",
    "models",
    "fit",
    "faces",
    "calibrate",
    "collections",
    "jobs",
    "token",
    "admin",
    "doctor",
    "bench",
)
_MISUSE = (errors.InvalidArgument, errors.NotFound, errors.AlreadyExists)


class Commands(click.Group):
    """Loads a command when it is asked for: `lookalike nodes` needs nothing of `lookalike duplicates`."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command:
        if name not in _COMMANDS:
            near = difflib.get_close_matches(name, _COMMANDS, n=1)
            context.fail(f"there is no command {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        command: click.Command = import_module(f"lookalike.cli.{name}").command
        return command


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"lookalike {version('lookalike')}")
        context.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def lookalike() -> None:
    """Near-duplicates, search and descriptors of your own pictures.

    Every command works against a server (--server HOST:PORT, or LOOKALIKE_SERVER) and, without one, on an
    engine inside the command, which keeps its collections in --data.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 0, 1 for failure, 2 for misuse, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if sys.stdout is None and arguments[:1] != ["serve"]:  # a server has little to say there
        return fail("standard output is closed: there is nowhere to tell what was found", 1)
    try:
        status: Any = lookalike.main(arguments, prog_name="lookalike", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        say(error.format_message())
        return 2
    except click.UsageError as error:
        return fail(f"{error.format_message()}{_help_hint(error)}", 2)
    except click.ClickException as error:
        return fail(error.format_message(), 1)
    except click.Abort as error:
        return fail(f"stopped; {error}" if isinstance(error, Interrupted) else "stopped", 130)
    except errors.LookalikeError as error:
        notes = getattr(error, "__notes__", [])
        return fail("\n".join([str(error), *notes]), 2 if isinstance(error, _MISUSE) else 1)
    except UnicodeEncodeError as error:
        return fail(f"{error.object!r} is no Unicode text", 2)
    except OSError as error:
        return _fail_on(error)
    return status if isinstance(status, int) else 0


def _help_hint(error: click.UsageError) -> str:
    path = error.ctx.command_path if error.ctx else "lookalike"
    return f" ({path} --help tells more)"


def _fail_on(error: OSError) -> int:
    """Files that are written have their name in the error; standard output has none."""
    if isinstance(error, BrokenPipeError) and error.filename is None:
        return 1  # whoever read it has enough
    return fail(f"{error.filename or 'standard output'}: {error.strerror or error}", 1)
