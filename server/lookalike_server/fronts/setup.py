"""What a front-end is started with: the settings that its own end of gRPC needs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from lookalike_server.listening import listen
from lookalike_server.tls import Certificates

if TYPE_CHECKING:
    from lookalike_server.config import Settings


@dataclass(frozen=True)
class Setup:
    """Attributes:
    address: HOST:PORT, which the others take as well.
    certificates: None: plain text.
    max_connections: of this front-end.
    max_calls: of all of them; the engine counts those of the others too.
    eager, unary: see Front.
    """

    address: str
    certificates: Certificates | None
    max_message_bytes: int
    max_connections: int
    max_calls: int
    eager: bool
    unary: list[str]
    log_format: str
    log_level: str

    @classmethod
    def of(cls, settings: Settings, address: str, unary: list[str]) -> Setup:
        return cls(
            address=address,
            certificates=Certificates.of(settings),
            max_message_bytes=settings.max_message_bytes,
            max_connections=-(-settings.max_connections // settings.front_ends),
            max_calls=settings.max_calls,
            eager=settings.token_file is None,  # a stranger's megabytes are not taken in
            unary=unary,
            log_format=settings.log_format,
            log_level=settings.log_level,
        )

    def encode(self) -> str:
        return json.dumps(asdict(self), default=str)  # paths

    @classmethod
    def decode(cls, text: str) -> Setup:
        fields = json.loads(text)
        if files := fields["certificates"]:
            authorities = files["client_ca"] and Path(files["client_ca"])
            fields["certificates"] = Certificates(Path(files["certificate"]), Path(files["key"]), authorities)
        return cls(**fields)

    def listen(self) -> grpc.aio.Server:
        """Takes the address. Raises ListenFailed, and ConfigInvalid for certificates that cannot be used."""
        tls = None
        if self.certificates:
            tls = self.certificates.credentials(self.certificates.watched())
        limits = (self.max_connections, self.max_calls)
        server, _ = listen(self.address, [], self.max_message_bytes, tls, *limits, shared=True)
        return server
