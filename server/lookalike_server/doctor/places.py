"""Where the server keeps its data, where it listens, and whom it lets in."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from lookalike_server.config import Settings
from lookalike_server.doctor.findings import Doubt, State
from lookalike_server.errors import ListenFailed
from lookalike_server.tls import Certificates
from lookalike_server.tokens import read_tokens

_GIB = 1 << 30
_LEAST_FREE = _GIB
_SLOW_SYNC = 0.02
_SOON_DAYS = 14


def data(settings: Settings) -> str:
    folder = settings.data
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE:
        raise Doubt(
            "warn", f"{folder}: {free / _GIB:.1f} GiB free", "Make room, or choose another data folder."
        )
    sync = _sync_seconds(folder)
    told = f"{folder}: {free / _GIB:.0f} GiB free, a synced write takes {sync * 1000:.1f} ms"
    if sync > _SLOW_SYNC:
        raise Doubt("warn", told, "Use a local disk; each acknowledged write waits for one.")
    return told


def _sync_seconds(folder: Path) -> float:
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(9):
            started = time.monotonic()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            times.append(time.monotonic() - started)
    return statistics.median(times)


def lock(settings: Settings) -> str:
    path = settings.data / ".lock"  # see catalog.py
    if path.exists():
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                told = f"{settings.data} is in use by process {file.read(20).strip()}"
                raise Doubt("warn", told, "That is right while a server runs on it.") from None
    return f"nobody has {settings.data} open"


def address(settings: Settings) -> str:
    from lookalike_server.listening import probe

    try:
        probe(settings.address)
    except ListenFailed as error:
        state: State = "warn" if _answers(settings.address) else "fail"
        raise Doubt(state, error.message, "That is right while this server runs.") from None
    return f"{settings.address} is free"


def _answers(address: str) -> bool:
    if address.startswith("unix:"):
        return True  # a socket is refused only where somebody answers
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def certificate(settings: Settings) -> str:
    certificates = Certificates.of(settings)
    if certificates is None:
        return "no encryption is asked for"
    expires = certificates.read().expires
    days = (expires - datetime.now(UTC)).days
    if days < _SOON_DAYS:
        raise Doubt("warn", f"the certificate expires in {days} days", "Renew it; no restart is needed.")
    return f"the certificate is good until {expires:%Y-%m-%d}"


def tokens(settings: Settings) -> str:
    if settings.token_file is None:
        return "no tokens are asked for"
    tokens = read_tokens(settings.token_file)
    if not tokens:
        raise Doubt("warn", f"{settings.token_file} lets nobody in", "Add a line of `lookalike token new`.")
    return f"{len(tokens)} tokens are let in"
