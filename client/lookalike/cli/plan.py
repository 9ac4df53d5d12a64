"""`lookalike duplicates --apply` and `--undo`: moving redundant photos away, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from lookalike.cli.meter import meter
from lookalike.cli.output import interruptible, plural, say, shown, size
from lookalike.plan import Left, carry_out, prepare, read_plan, undo

Command = TypeVar("Command", bound=Callable[..., Any])

_MOVE_TO, _YES = (
    "lookalike.plan.move_to",
    "lookalike.plan.yes",
)  # for the context: both are read before --apply


def plan_options(command: Command) -> Command:
    """Adds --apply, --move-to, --yes and --undo, which do their work in place of the command's."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    folder = click.Path(file_okay=False, path_type=Path)
    options = (
        click.option(
            "--apply",
            metavar="PLAN",
            type=file,
            expose_value=False,
            callback=_apply,
            help="Instead of searching, show what a plan (a report's --csv, or its export) would move.",
        ),
        click.option(
            "--move-to",
            metavar="DIR",
            type=folder,
            expose_value=False,
            is_eager=True,
            callback=_keep(_MOVE_TO),
            help="Where --apply moves photos to; DIR mirrors their whole paths.",
        ),
        click.option(
            "--yes",
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_keep(_YES),
            help="With --apply: move them.",
        ),
        click.option(
            "--undo",
            metavar="DIR",
            type=folder,
            expose_value=False,
            is_eager=True,
            callback=_undo,
            help="Instead of searching, put back what was moved to DIR.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _keep(key: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    return lambda context, _, value: context.meta.__setitem__(key, value)


def _apply(context: click.Context, _: click.Parameter, plan: Path | None) -> None:
    folder: Path | None = context.meta[_MOVE_TO]
    if plan is None:
        if folder is not None or context.meta[_YES]:
            raise click.UsageError("--move-to and --yes belong to --apply PLAN")
        return
    if folder is None:
        raise click.UsageError("--apply needs --move-to DIR, where the photos go")
    context.exit(apply_plan(plan, folder, sure=context.meta[_YES]))


def _undo(context: click.Context, _: click.Parameter, folder: Path | None) -> None:
    if folder is not None:
        context.exit(undo_plan(folder))


def apply_plan(plan: Path, folder: Path, *, sure: bool) -> int:
    """Moves what the plan says into the folder or, unless `sure`, only says what would be moved."""
    moves, left = prepare(read_plan(plan), folder)
    if not sure:
        for move in moves:
            click.echo(f"{shown(move.source)} -> {shown(move.target)}")
        _list_left(left, "would stay")
        room = size(sum(move.source.stat().st_size for move in moves))
        say(f"{plural(len(moves), 'photo')}, {room}, would be moved; nothing was. Add --yes to move them.")
        return 0
    with interruptible(_undo_hint(folder)), meter("moving", len(moves), "photos") as advance:
        failed = carry_out(moves, folder, advance)
    click.echo(f"{plural(len(moves) - len(failed), 'photo')} moved to {shown(folder)}")
    _list_left([*left, *failed], "stayed")
    say(_undo_hint(folder))
    return 1 if failed else 0


def undo_plan(folder: Path) -> int:
    """Moves everything back from the folder."""
    with interruptible("what went back stays there, and the same command goes on from there"):
        try:
            left = undo(folder)
        except FileNotFoundError:
            raise click.UsageError(
                f"nothing was moved to {shown(folder)}: it holds no notes of moves"
            ) from None
    _list_left(left, "could not go back")
    click.echo("everything else is back in its place" if left else "everything is back in its place")
    return 1 if left else 0


def _undo_hint(folder: Path) -> str:
    return f"lookalike duplicates --undo {shown(folder)} puts them back"


def _list_left(left: Sequence[Left], what: str) -> None:
    if left:
        say(f"{plural(len(left), 'photo')} {what}:")
        for stays in left:
            say(f"  {shown(stays.path)}: {stays.reason}")
