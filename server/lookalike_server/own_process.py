"""What a process that only serves sets for itself. An embedded server leaves its program's process alone."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

STARTED = time.monotonic()
"""When this process began, about: a command that serves imports this before what takes seconds."""

# Looks at what is waited for, some ten microseconds. See docs/serving.md for what it was chosen by.
_SPINS = 10_000


def before_torch() -> None:
    """Lets torch's threads wait busily for a moment only and then sleep, unless the environment says how.

    To be called before torch is imported: its OpenMP reads the environment when it is loaded. Waiting busily
    is quicker where nothing else runs. Beside an event loop and decoders on the same cores it takes them
    away from the threads that are waited for.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))


def environment_apart(*, torch_only: bool) -> Mapping[str, str]:
    """The environment for a process that does nothing but compute.

    Where all of that is torch, its threads may wait busily for as long as they do by default: nobody else
    wants their cores. OpenVINO does, for threads of its own.
    """
    environ = dict(os.environ)
    if torch_only and environ.get("GOMP_SPINCOUNT") == str(_SPINS):
        del environ["GOMP_SPINCOUNT"]
    return environ


def leave(status: int) -> NoReturn:
    """Ends this process at once: to take apart an interpreter that has torch takes over a second.

    To be called when all is closed. What was registered for the end of the process is done.
    """
    atexit._run_exitfuncs()
    with suppress(OSError, KeyError):  # torch makes it when it traces; one that holds something stays
        os.rmdir(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(status)
