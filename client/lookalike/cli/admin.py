"""`lookalike admin`: a running server, over its admin socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
import grpc

from lookalike import _shared
from lookalike.cli.output import print_json, say
from lookalike.errors import Unavailable
from lookalike.v1 import admin_pb2 as pb
from lookalike.v1 import admin_pb2_grpc

Command = TypeVar("Command", bound=Callable[..., Any])

_STATES = {
    pb.SERVER_STATE_SERVING: "serving",
    pb.SERVER_STATE_NOT_READY: "not ready",
    pb.SERVER_STATE_DRAINING: "draining",
}
_LEVELS = {
    "debug": pb.LOG_LEVEL_DEBUG,
    "info": pb.LOG_LEVEL_INFO,
    "warning": pb.LOG_LEVEL_WARNING,
    "error": pb.LOG_LEVEL_ERROR,
}


@click.group("admin", short_help="Look after a running server.")
def command() -> None:
    """Talks to a server's admin socket (its setting admin_address)."""


def socket_option(function: Command) -> Command:
    return click.option(
        "--socket",
        required=True,
        metavar="unix:PATH",
        envvar="LOOKALIKE_ADMIN_ADDRESS",
        show_envvar=True,
        help="The server's admin_address.",
    )(function)


@command.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@socket_option
def status(socket: str, as_json: bool) -> None:
    """Tells what the server is doing."""
    with _admin(socket) as stub:
        now: pb.GetStatusResponse = stub.GetStatus(pb.GetStatusRequest(), timeout=5)
    facts: dict[str, Any] = {
        "state": _STATES.get(now.state, "unknown"),
        "reason": now.reason,
        "address": now.address,
        "version": now.version,
        "uptime_seconds": now.uptime.ToTimedelta().total_seconds(),
        "calls_in_flight": now.calls_in_flight,
        "images": now.images,
        "image_bytes": now.image_bytes,
        "collections": now.collections,
        "tokens": list(now.tokens),
        "replicas": [f"{each.name} {each.reason or 'ready'}" for each in now.replicas],
        "reload_fault": now.reload_fault,
    }
    if now.HasField("certificate_expires"):
        facts["certificate_expires"] = now.certificate_expires.ToJsonString()
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        if shown != "":
            click.echo(f"{name.replace('_', ' '):20s}{shown}")


@command.command("drain")
@socket_option
def drain(socket: str) -> None:
    """Ends the server as SIGTERM does; called again, at once."""
    with _admin(socket) as stub:
        stub.Drain(pb.DrainRequest(), timeout=5)
    say("the server is draining")


@command.command("reload")
@socket_option
def reload(socket: str) -> None:
    """Makes the server read certificate, tokens and recipes again, and tells whether it could.

    Recipes that have changed are loaded while those before go on, which may take minutes. What cannot be used
    changes nothing.
    """
    with _admin(socket) as stub:
        stub.ReloadFiles(pb.ReloadFilesRequest(), timeout=5)
        say("the files are in force")
        done: pb.ReloadRecipesResponse = stub.ReloadRecipes(pb.ReloadRecipesRequest(), timeout=900)
    for what, names in (("loaded", done.loaded), ("as before", done.kept), ("served no more", done.gone)):
        if names:
            say(f"recipes {what}: {', '.join(names)}")


@command.command("log-level")
@click.argument("level", type=click.Choice(list(_LEVELS)))
@socket_option
def log_level(level: str, socket: str) -> None:
    """Sets how much the server logs; at info there is a line for each call."""
    with _admin(socket) as stub:
        stub.SetLogLevel(pb.SetLogLevelRequest(level=_LEVELS[level]), timeout=5)
    say(f"the log is at {level}")


@contextmanager
def _admin(socket: str) -> Iterator[Any]:
    with grpc.insecure_channel(_shared.checked_target(socket)) as channel:
        try:
            yield admin_pb2_grpc.AdminServiceStub(channel)
        except grpc.RpcError as error:
            told = _shared.error_of(error, socket)
            if told.reason == "UNREACHABLE":
                raise Unavailable(
                    f"no server has its admin socket at {socket}; start it with the setting "
                    f"admin_address = {socket!r} (LOOKALIKE_ADMIN_ADDRESS)",
                    told.reason,
                ) from None
            raise told from None
