"""A process of models, from its start until it gets its order.

To import what models need takes it seconds. A server that will want one starts it first of all, and imports
its own part meanwhile.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookalike_server.apart.memory import memory_file
from lookalike_server.children import spawn
from lookalike_server.own_process import environment_apart

if TYPE_CHECKING:
    from lookalike_server.config import Settings


@dataclass(frozen=True)
class Started:
    """A process that waits for its order.

    Attributes:
        connection: to it.
        memory: the descriptor of a file that it has too; whoever has the process closes it.
        environ: what it was started in.
    """

    process: subprocess.Popen[bytes]
    connection: Connection[Any, Any]
    memory: int
    environ: Mapping[str, str]

    def end(self) -> None:
        """Ends it at once."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


# Nobody has taken them yet.
_early: list[Started] = []


def start_early(settings: Settings) -> None:
    """Starts one if these settings will want it, as far as that can be told without torch."""
    cpu = settings.device == "cpu" or (settings.device == "auto" and not Path("/dev/nvidiactl").exists())
    if cpu and settings.model_process:
        _early.append(_start(_environment([settings.runtime])))


def take(wishes: Sequence[str]) -> Started:
    """The one that was started early, or another one.

    Args:
        wishes: the runtimes that its models are to run in.

    Raises OSError when the system has no process for it.
    """
    environ = _environment(wishes)
    while _early:
        started = _early.pop()
        if started.environ == environ and started.process.poll() is None:
            return started
        _drop(started)
    return _start(environ)


def end_early() -> None:
    """Ends what was started early and is not wanted."""
    while _early:
        _drop(_early.pop())


def _drop(started: Started) -> None:
    started.end()
    os.close(started.memory)


def _environment(wishes: Sequence[str]) -> Mapping[str, str]:
    named = any(wish.startswith("openvino") for wish in wishes)
    openvino = named or ("auto" in wishes and find_spec("openvino") is not None)
    return environment_apart(torch_only=not openvino)


def _start(environ: Mapping[str, str]) -> Started:
    ours, its = Pipe()
    memory = memory_file()
    try:
        with its:
            process = spawn("lookalike_server.apart", [its.fileno(), memory], environ=environ)
    except BaseException:
        ours.close()
        os.close(memory)
        raise
    return Started(process, ours, memory, environ)
