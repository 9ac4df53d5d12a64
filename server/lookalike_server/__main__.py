"""`python -m lookalike_server`: the server without the rest of the command line, as a container wants it."""

from __future__ import annotations

import os
import sys
from typing import Any

# gRPC's C core writes lines of its own to standard error; ours say the same in one. Read when it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lookalike_server.own_process import before_torch, leave


@click.group(invoke_without_command=True)
@click.option("--config", type=click.Path(), help="TOML file with settings.")
@click.option("--address", help="HOST:PORT or unix:PATH to listen on.")
@click.option("--data", type=click.Path(), help="Folder of the collections.")
@click.option("--device", help="auto, cpu, cuda, or GPUs as cuda:0,cuda:1.")
@click.option("--served-recipes", help="Recipes to compute, with commas between; the first is the default.")
@click.pass_context
def main(context: click.Context, /, config: str | None, **flags: Any) -> None:
    """Serves descriptors, collections and duplicates over gRPC.

    Every setting can be given in the environment as well, as LOOKALIKE_MAX_K=500.
    """
    if context.invoked_subcommand is not None:
        return
    # Here, because a health check must not load torch.
    before_torch()
    from lookalike_extractor.errors import LookalikeError

    from lookalike_server.apart.process import start_early
    from lookalike_server.directory import check
    from lookalike_server.errors import ConfigInvalid
    from lookalike_server.loading import load_settings

    try:
        settings = load_settings(flags, config)
        check(settings.data)
    except LookalikeError as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigInvalid) else 1)
    start_early(settings)
    from lookalike_server.app import serve

    leave(serve(settings, lambda: load_settings(flags, config)))


@main.command()
@click.option("--address", default="127.0.0.1:50051", envvar="LOOKALIKE_ADDRESS", show_default=True)
@click.option("--timeout", default=5.0, show_default=True, help="Seconds to wait for an answer.")
def health(address: str, timeout: float) -> None:
    """Exits with 0 when the server at the address is serving, else with 1."""
    target = address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
    with grpc.insecure_channel(target) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout
            )
        except grpc.RpcError as error:
            sys.exit(f"{address}: {error.code().name}")
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        sys.exit(f"{address}: {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}")


if __name__ == "__main__":
    main(prog_name="lookalike-server")
