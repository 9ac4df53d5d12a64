"""What a server is told while it runs, to end or to read its settings again; what it tells its manager."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from lookalike_server.config import Settings


class Stop:
    """Called once, the server drains; called again, it stops at once. Of one event loop."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()

    def __call__(self) -> None:
        (self.hurried if self.asked.is_set() else self.asked).set()


@dataclass(frozen=True)
class Again:
    """How a server gets other recipes.

    Attributes:
        read: reads the settings again; raises ConfigInvalid.
        asked: set it, and what can be read again is.
    """

    read: Callable[[], Settings]
    asked: asyncio.Event


def heed_signals(stop: Stop, again: Again) -> None:
    """SIGTERM and SIGINT stop the server of this event loop, SIGHUP makes it read again."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    if not sys.stdin.isatty():  # what was started in a terminal ends with it
        loop.add_signal_handler(signal.SIGHUP, again.asked.set)


def tell_manager(state: str) -> None:
    """Tells systemd, where it has started the server and wants to know (sd_notify(3)), as "READY=1"."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(state.encode(), address)
