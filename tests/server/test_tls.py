"""TLS over the real wire: who is believed, and what a changed file does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Pair, make_authority, make_pair
from listening import listening
from lookalike import AsyncClient, Client
from lookalike.errors import InvalidArgument, Unavailable
from lookalike_server.app import serve
from lookalike_server.config import Settings
from lookalike_server.errors import ConfigInvalid
from lookalike_server.interceptors import CallInterceptor
from lookalike_server.loading import load_settings
from lookalike_server.tls import Certificates


@pytest.fixture
def authority(tmp_path: Path) -> Pair:
    return make_authority(tmp_path)


@pytest.fixture
def pair(tmp_path: Path, authority: Pair) -> Pair:
    return make_pair(tmp_path, "server", authority)


@contextmanager
def encrypted(certificates: Certificates) -> Iterator[str]:
    """A server with one call on a port of its own."""
    with listening(
        CallInterceptor(), tls=lambda: certificates.credentials(certificates.watched())
    ) as address:
        yield address


def version(address: str, **access: Any) -> str:
    with Client(address, timeout=5, **access) as client:
        return client.info().version


def test_both_clients_talk_to_a_server_whose_authority_they_know(authority: Pair, pair: Pair) -> None:
    async def asynchronous(address: str) -> str:
        async with AsyncClient(address, ca=authority.certificate) as client:
            return (await client.info()).version

    with encrypted(Certificates(pair.certificate, pair.key)) as address:
        assert version(address, ca=authority.certificate) == "1"
        assert asyncio.run(asynchronous(address)) == "1"


def test_a_stranger_s_certificate_is_not_believed_and_the_error_says_so(pair: Pair, tmp_path: Path) -> None:
    stranger = make_authority(tmp_path, "stranger")
    with (
        encrypted(Certificates(pair.certificate, pair.key)) as address,
        pytest.raises(Unavailable, match="is not trusted") as caught,
    ):
        version(address, ca=stranger.certificate)
    assert caught.value.reason == "TLS_FAILED"


def test_with_client_certificates_only_those_who_show_one_come_in(
    authority: Pair, pair: Pair, tmp_path: Path
) -> None:
    known = make_pair(tmp_path, "known", authority)
    unknown = make_pair(tmp_path, "unknown", make_authority(tmp_path, "elsewhere"))
    with encrypted(Certificates(pair.certificate, pair.key, authority.certificate)) as address:
        assert version(address, ca=authority.certificate, certificate=known.certificate, key=known.key) == "1"
        for shown in ({}, {"certificate": unknown.certificate, "key": unknown.key}):
            with pytest.raises(Unavailable):
                version(address, ca=authority.certificate, **shown)


def test_a_new_certificate_is_shown_to_who_connects_next(authority: Pair, pair: Pair, tmp_path: Path) -> None:
    later = make_authority(tmp_path, "later")
    renewed = make_pair(tmp_path, "renewed", later)
    with (
        encrypted(Certificates(pair.certificate, pair.key)) as address,
        Client(address, ca=authority.certificate) as before,
    ):
        assert before.info().version == "1"
        pair.key.write_bytes(renewed.key.read_bytes())
        pair.certificate.write_bytes(renewed.certificate.read_bytes())
        assert version(address, ca=later.certificate) == "1"
        assert before.info().version == "1"


def test_a_change_that_cannot_be_used_is_logged_and_changes_nothing(
    authority: Pair, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    with encrypted(Certificates(pair.certificate, pair.key)) as address:
        pair.certificate.write_text("-----BEGIN half a file")
        assert version(address, ca=authority.certificate) == "1"
    assert "stay in force" in caplog.text


def fault(certificate: Path, key: Path, client_ca: Path | None = None) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        Certificates(certificate, key, client_ca).read()
    return caught.value.message


def test_each_fault_of_the_files_is_told_in_its_own_words(
    authority: Pair, pair: Pair, tmp_path: Path
) -> None:
    expired = make_pair(tmp_path, "expired", authority, days=-1)
    future = make_pair(tmp_path, "future", authority, days=30)
    text = tmp_path / "text"
    text.write_text("no PEM")
    assert fault(expired.certificate, expired.key).endswith("expired.crt has expired; renew it.")
    assert "is not valid yet" in fault(future.certificate, future.key)
    assert fault(pair.certificate, expired.key).endswith(f"is not the key of {pair.certificate}.")
    assert fault(text, pair.key).startswith("tls_key: ")
    assert "cannot be read: No such file" in fault(tmp_path / "none", pair.key)
    assert fault(pair.certificate, pair.key, text).startswith("tls_client_ca: ")


def test_an_expired_certificate_ends_the_start_in_one_line(
    tmp_path: Path, authority: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    expired = make_pair(tmp_path, "expired", authority, days=-1)
    settings = Settings(
        address="127.0.0.1:0", data=tmp_path, tls_certificate=expired.certificate, tls_key=expired.key
    )
    assert serve(settings) == 2
    line = f"lookalike: tls_certificate: {expired.certificate} has expired; renew it.\n"
    assert capsys.readouterr().err == line


def test_a_certificate_without_its_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="tls_certificate and tls_key belong together"):
        load_settings({"tls_certificate": tmp_path / "a"}, environ={})


def test_a_client_certificate_without_its_key_is_told() -> None:
    with pytest.raises(InvalidArgument, match="belong together"):
        Client("localhost:1", certificate="a.crt")


def test_files_that_are_no_certificates_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.crt", tmp_path):
        with pytest.raises(InvalidArgument, match=str(path)):
            Client("localhost:1", ca=path)


def test_a_server_without_tls_is_told_from_one_that_is_not_there(authority: Pair) -> None:
    server = grpc.server(None)  # type: ignore[arg-type] # it answers nothing
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(Unavailable, match="does not speak TLS"):
        version(f"127.0.0.1:{port}", ca=authority.certificate)
    server.stop(None)
