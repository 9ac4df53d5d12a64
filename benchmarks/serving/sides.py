"""The servers of the comparison as processes: how each is started, asked, and what CPU it takes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import asking
import grpc
from asking import Ask

HERE = Path(__file__).parent
PEERS: dict[str, Callable[[str], Ask]] = {
    "litserve": asking.litserve,
    "mosec": asking.mosec,
    "mlserver": asking.kserve,
    "triton": asking.kserve,
}


@dataclass
class Side:
    """A server that runs.

    Attributes:
        make: connects one more client.
    """

    process: subprocess.Popen[bytes]
    make: Callable[[], Ask]
    target: str

    def cpu_seconds(self) -> float:
        return _cpu_seconds(self.process.pid)

    def memory(self) -> float:
        """Resident, in MiB; of Lookalike's server, which is one process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def served(way: str, model: str, folder: str, image: bytes) -> Iterator[Side]:
    """A server that has answered for an image.

    Args:
        way: "unary" or "stream" for ours, or PEER=PYTHON, the interpreter where that one is installed.
        folder: for a socket, and for what the server says of itself.
    """
    peer, _, python = way.partition("=")
    target = f"unix:{folder}/{peer}" if peer in ("unary", "stream") else f"127.0.0.1:{_free_port()}"
    if peer in PEERS:
        command, ask, own = [python, f"{peer}_side.py"], PEERS[peer], {}
    else:
        command, ask = [sys.executable, "ours.py", model, target], getattr(asking, peer)
        own = {"GOMP_SPINCOUNT": "10000"}  # as `lookalike serve` sets it for itself
    log = Path(folder) / f"{peer}.log"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))  # and stop the server too
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=log.open("wb"),
        env=os.environ
        | {"MODEL": model, "PORT": target.rpartition(":")[2]}
        # Peers find torch, and what is shared, where this interpreter does.
        | {"SHARED_PATH": os.pathsep.join(path for path in sys.path if path)}
        | own,
        cwd=HERE,
        start_new_session=True,
    )
    try:
        if not _answers(lambda: ask(target), image):
            sys.exit(f"{peer} does not answer: {log.read_text()[-2000:]}")
        yield Side(process, lambda: ask(target), target)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with the workers, some of which outlive their parent
        process.wait()


def _answers(make: Callable[[], Ask], image: bytes, seconds: float = 120) -> bool:
    """Waits until the server does."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        try:
            if len(make()([image])):
                return True
        except (grpc.RpcError, OSError, HTTPException):
            pass
        time.sleep(0.2)
    return False


def _cpu_seconds(pid: int) -> float:
    """Of a process and its descendants."""
    ticks = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    children = (Path(f"/proc/{pid}/task/{task}/children") for task in os.listdir(f"/proc/{pid}/task"))
    below: list[Any] = [child for path in children for child in path.read_text().split()]
    return ticks / os.sysconf("SC_CLK_TCK") + sum(_cpu_seconds(int(child)) for child in below)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
