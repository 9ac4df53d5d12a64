"""Processes of a server's own: front-ends (fronts) and models (apart)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

# For ending, once its socket is closed.
_END_SECONDS = 5.0
# What ends a server is told to it, and by it to its processes, whoever else the signal went to.
_DEAF_TO = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def spawn(
    module: str, descriptors: Sequence[int], *arguments: str, environ: Mapping[str, str] = os.environ
) -> subprocess.Popen[bytes]:
    """Starts `python -m module DESCRIPTORS ARGUMENTS`, which finds its modules where this process does.

    It keeps the descriptors of files that are named, and this process's standard error. Raises OSError when
    the system has no process for it.
    """
    command = [sys.executable, "-P", "-m", module, *map(str, descriptors), *arguments]
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _DEAF_TO)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=descriptors,
            env={**environ, "PYTHONPATH": path},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ended(process: subprocess.Popen[bytes]) -> int:
    """Waits for a process that is about to end, and returns its status; one that does not is killed."""
    try:
        return process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
