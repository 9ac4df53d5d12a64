"""TLS: certificates that are checked before they are used, and used anew when their files change.

A certificate is checked by a handshake with itself, in memory: OpenSSL then says in its own words whether the
key fits, whether it can be read, and whether it has expired.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc

from lookalike_server.errors import ConfigInvalid
from lookalike_server.watched import Watched

if TYPE_CHECKING:
    from lookalike_server.config import Settings

_EXPIRED, _NOT_YET = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID


@dataclass(frozen=True)
class Shown:
    """What clients are shown, and until when it is good."""

    configuration: grpc.ServerCertificateConfiguration
    expires: datetime


@dataclass(frozen=True)
class Certificates:
    """The files of a server's TLS.

    Args:
        certificate: PEM, the server's own first, then those between it and its authority.
        key: PEM, without a passphrase.
        client_ca: PEM, the authorities of the clients' certificates; None asks clients for none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def read(self) -> Shown:
        """Returns what clients are shown from now on. Raises ConfigInvalid, naming the wrong setting."""
        context = self._context()
        if self.client_ca is not None:
            _load_authorities(self.client_ca)
        expires = _expiry(context, self.certificate)
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        roots = None if self.client_ca is None else self.client_ca.read_bytes()
        return Shown(grpc.ssl_server_certificate_configuration([pair], roots), expires)

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Those of the settings; None when they ask for no encryption."""
        if settings.tls_certificate is None or settings.tls_key is None:
            return None
        return cls(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)

    def watched(self) -> Watched[Shown]:
        """The files, kept up to date. Raises ConfigInvalid."""
        paths = [self.certificate, self.key, *([self.client_ca] if self.client_ca else [])]
        return Watched(paths, self.read)

    def credentials(self, watched: Watched[Shown]) -> grpc.ServerCredentials:
        """Returns credentials that take the files as they are when a client connects."""

        def now() -> grpc.ServerCertificateConfiguration:
            return watched.get().configuration

        return grpc.dynamic_ssl_server_credentials(now(), now, self.client_ca is not None)

    def _context(self) -> ssl.SSLContext:
        _readable("tls_certificate", self.certificate)
        _readable("tls_key", self.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # The password is asked for only when the key has one, and then it is wrong.
            context.load_cert_chain(self.certificate, self.key, password="")
        except ssl.SSLError as error:
            raise ConfigInvalid(f"tls_key: {self._fault(error)}") from None
        return context

    def _fault(self, error: ssl.SSLError) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"{self.key} is not the key of {self.certificate}."
        return (
            f"{self.certificate} and {self.key} are no certificate and key in PEM ({error.reason or error})."
        )


def _readable(setting: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigInvalid(f"{setting}: {path} cannot be read: {error.strerror or error}.") from None


def _load_authorities(path: Path) -> None:
    _readable("tls_client_ca", path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigInvalid(f"tls_client_ca: {path} holds no certificates in PEM ({error.reason}).") from None


def _expiry(server: ssl.SSLContext, certificate: Path) -> datetime:
    """Lets a client that trusts this certificate alone shake hands with a server that shows it."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    calling = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for end in (calling, answering, calling):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            raise ConfigInvalid(f"tls_certificate: {certificate} {_why(error)}") from None
    shown = calling.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)


def _why(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return "has expired; renew it."
    if error.verify_code == _NOT_YET:
        return "is not valid yet; is the clock of this machine right?"
    return f"cannot be used: {error.verify_message}."
