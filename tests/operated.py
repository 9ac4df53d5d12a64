"""The whole server, run as `lookalike serve` runs it, around a device made by hand."""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import pytest
from lookalike_server import app, reloading
from lookalike_server.config import Settings
from lookalike_server.device import Device
from lookalike_server.engine import Engine
from looping import Ready, looping
from serving import TinyModel, recipes_of


@dataclass
class Operated:
    address: str
    engine: Engine
    stop: Any
    ended: threading.Event

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.address)


@contextmanager
def operated(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *devices: Device,
    read: Callable[[], Settings] | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    **settings: Any,
) -> Iterator[Operated]:
    """A server with all its services on a port of its own, drained at the end.

    Args:
        devices: one for each replica.
        read: reads the settings again.
        options: of the engine.
    """
    devices = devices or (Device([TinyModel()]),)
    monkeypatch.setattr(app, "served_recipes", lambda _: recipes_of(devices[0]))
    monkeypatch.setattr(app, "make_engine", lambda _, recipes: Engine(recipes, *devices, **options))
    if read is None:  # a reload finds what is there already
        monkeypatch.setattr(reloading, "served_recipes", lambda _: recipes_of(devices[0]))
        monkeypatch.setattr(reloading, "group_recipes", lambda recipes: [[recipe] for recipe in recipes])
    given = Settings(**({"address": "127.0.0.1:0", "data": folder / "data"} | settings))
    ended = threading.Event()

    async def main(ready: Ready[Operated]) -> None:
        stop, loop = app.Stop(), asyncio.get_running_loop()

        def serving(address: str, engine: Engine) -> None:
            ready(Operated(address, engine, lambda: loop.call_soon_threadsafe(stop), ended), stop)

        try:
            await app.run(given, stop, serving, app.Again(read or (lambda: given), asyncio.Event()))
        finally:
            ended.set()

    with looping(main) as running:
        yield running


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


def scraped(address: str) -> str:
    """What Prometheus reads there."""
    text: str = urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()
    return text
