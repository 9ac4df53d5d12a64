"""Taking an address, of one process or of several that the kernel shares its connections out between."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from lookalike_server.errors import ListenFailed

_OPTIONS = [
    # A page of duplicates may hold one very large group; what we send is our own doing.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", 256),
    # A peer that vanished without a word is noticed in two minutes, and clients may ask as often themselves.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
]


def listen(
    address: str,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    max_message_bytes: int,
    tls: grpc.ServerCredentials | None = None,
    max_connections: int = 64,
    max_calls: int | None = None,
    *,
    shared: bool = False,
) -> tuple[grpc.aio.Server, str]:
    """Takes the address. Returns the server, not started, and its address with the port that was taken.

    Args:
        shared: others listen there too, and `reserve` has looked at the address.

    Raises ListenFailed.
    """
    if not shared:
        probe(address)
    options = [
        *_OPTIONS,
        # A second server on the same port is no error with it: the kernel shares the calls out between them.
        ("grpc.so_reuseport", int(shared)),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_allowed_incoming_connections", max_connections),
    ]
    server = grpc.aio.server(interceptors=interceptors, options=options, maximum_concurrent_rpcs=max_calls)
    try:
        port = server.add_secure_port(address, tls) if tls else server.add_insecure_port(address)
    except RuntimeError as error:
        raise ListenFailed(f"Cannot listen on {address}: {error}.") from None
    return server, address if address.startswith("unix:") else _with_port(address, port)


def reserve(address: str) -> tuple[socket.socket, str]:
    """Takes HOST:PORT for processes that will listen there, until the socket is closed.

    Returns the socket, which takes no connections itself, and the address with the port that was taken.
    Raises ListenFailed, also when anybody listens there already.
    """
    probe(address)
    family, kind, proto, place = _resolved(address)
    holder = socket.socket(family, kind, proto)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        holder.bind(place)
    except OSError as error:
        holder.close()
        raise _failed(address, error) from None
    return holder, _with_port(address, holder.getsockname()[1])


def probe(address: str) -> None:
    """Binds the address and lets it go, because the operating system's own words are lost in gRPC's.

    For a Unix socket it asks whether somebody listens there: gRPC would take its name away.
    """
    try:
        if address.startswith("unix:"):
            _refuse_living(Path(address.removeprefix("unix:")))
            return
        family, kind, proto, place = _resolved(address)
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise _failed(address, error) from None


def _resolved(address: str) -> tuple[socket.AddressFamily, socket.SocketKind, int, Any]:
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    family, kind, proto, _, place = found[0]
    return family, kind, proto, place


def _failed(address: str, error: OSError) -> ListenFailed:
    reason = error.strerror or str(error)
    return ListenFailed(f"Cannot listen on {address}: {reason}. Choose another with --address.")


def _with_port(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"


def _refuse_living(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        if path.exists() and probe.connect_ex(str(path)) == 0:
            raise OSError(0, "another server listens there")
        if not path.parent.is_dir():
            raise OSError(0, f"there is no folder {path.parent}")
