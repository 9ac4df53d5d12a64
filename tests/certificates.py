"""Certificates for tests, made on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    certificate: Path
    key: Path


def make_authority(folder: Path, name: str = "authority") -> Pair:
    """A certificate that signs others."""
    return make_pair(folder, name, None, authority=True)


def make_pair(
    folder: Path, name: str, signer: Pair | None, *, days: float = 2, authority: bool = False
) -> Pair:
    """A certificate for localhost that ends in so many days; without a signer it is signed by itself."""
    own = ec.generate_private_key(ec.SECP256R1())
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    until = datetime.now(UTC) + timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(name if signer is None else signer.certificate.stem))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(until - timedelta(days=10))
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName(_PLACES), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    signed = builder.sign(own if signer is None else _key(signer), hashes.SHA256())
    pair.key.write_bytes(
        own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    pair.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return pair


_PLACES = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key(pair: Pair) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
