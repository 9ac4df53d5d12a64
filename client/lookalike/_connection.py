"""How a client reaches a server: plain text or TLS, and the token it shows.

Plain and asynchronous channels make their calls from the same methods, so one `Bearer` stands before both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc

from lookalike import _shared
from lookalike.errors import InvalidArgument

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Access:
    """What a client shows a server, and what it asks of it. Checked when it is made.

    Args:
        tls: encrypts, and believes a server whose certificate one of the system's authorities signed.
        ca: file with the certificates (PEM) to believe instead of those; means tls.
        certificate, key: files (PEM) that prove who the client is; they mean tls.
        token: is sent with every call.
        plaintext_token: lets the token travel unencrypted to another machine.

    Raises InvalidArgument.
    """

    target: str
    tls: bool = False
    ca: PathLike | None = None
    certificate: PathLike | None = None
    key: PathLike | None = None
    token: str | None = field(default=None, repr=False)
    plaintext_token: bool = False

    def __post_init__(self) -> None:
        _shared.checked_target(self.target)
        if (self.certificate is None) != (self.key is None):
            raise _invalid("a client's certificate and key belong together: give both or neither")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token):
            raise _invalid("the token holds characters that no token has; was it copied whole?")
        if self.token is not None and not (self.encrypted or self.plaintext_token or is_local(self.target)):
            raise _invalid(
                f"the token would travel to {self.target} readable by everyone on the way: use TLS, or allow "
                "it with plaintext_token"
            )

    @property
    def encrypted(self) -> bool:
        return self.tls or self.ca is not None or self.certificate is not None

    def channel(self) -> Any:
        """A grpc.Channel whose calls carry the token."""
        return self._open(grpc.insecure_channel, grpc.secure_channel)

    def aio_channel(self, options: Sequence[tuple[str, Any]] = ()) -> Any:
        """The same for asyncio; `options` are gRPC's, beside those of every channel."""
        return self._open(grpc.aio.insecure_channel, grpc.aio.secure_channel, options)

    def _open(
        self,
        insecure: Callable[..., Any],
        secure: Callable[..., Any],
        more: Sequence[tuple[str, Any]] = (),
    ) -> Any:
        options = [*_shared.channel_options(), *more]
        if self.encrypted:
            channel = secure(self.target, self._credentials(), options=options)
        else:
            channel = insecure(self.target, options=options)
        return channel if self.token is None else Bearer(channel, self.token)

    def _credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.certificate))


class Bearer:
    """A channel that shows a token with every call; plain and asynchronous ones alike.

    gRPC's own interceptors would do it too, at the price of a wrapper around each stream that has its own
    ideas about cancelling.
    """

    def __init__(self, channel: Any, token: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),)
        self.close = channel.close
        self.unary_unary = self._bearing(channel.unary_unary)
        self.unary_stream = self._bearing(channel.unary_stream)
        self.stream_unary = self._bearing(channel.stream_unary)
        self.stream_stream = self._bearing(channel.stream_stream)

    def _bearing(self, make: Callable[..., Any]) -> Callable[..., Any]:
        def method(*arguments: Any, **options: Any) -> Any:
            call = make(*arguments, **options)
            return lambda *given, metadata=(), **more: call(
                *given, metadata=(*metadata, *self._metadata), **more
            )

        return method


def is_local(target: str) -> bool:
    """Whether what is sent to this address stays on this machine."""
    if target.startswith("unix:"):
        return True
    host = re.sub(r"^(dns|ipv4|ipv6):/*", "", target).rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: PathLike | None) -> bytes | None:
    if path is None:
        return None
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise _invalid(f"{os.fspath(path)} cannot be read: {error.strerror or error}") from None
    if b"-----BEGIN " not in data:
        raise _invalid(f"{os.fspath(path)} is not a PEM file: it has no line that begins with -----BEGIN")
    return data


def _invalid(message: str) -> InvalidArgument:
    return InvalidArgument(message, "CONNECTION_INVALID")
