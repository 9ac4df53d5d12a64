"""The command line, `lookalike`. It needs the `cli` extra, and without --server the `server` extra."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

_BROUGHT_BY_CLI = {"click", "rich", "PIL", "jinja2", "platformdirs"}
_INTERRUPTED = 128 + signal.SIGINT


def main() -> NoReturn:
    """Runs the command of sys.argv and ends the process: 0, 1 for failure, 2 for misuse, 130 for Ctrl-C.

    SIGTERM and a terminal that goes away end a command as Ctrl-C does, with a status of their own.
    """
    told = [signal.SIGINT]

    def stop(number: int, _: FrameType | None) -> None:
        told.append(signal.Signals(number))
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores the second
            signal.signal(number, stop)
    status = _run()
    _leave(128 + told[-1] if status == _INTERRUPTED else status)


def _run() -> int:
    # gRPC's C core writes lines of its own to standard error; ours say the same. Read when it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from lookalike.cli.app import run

        return run()
    except ModuleNotFoundError as error:
        if error.name not in _BROUGHT_BY_CLI:
            raise
        print(f"lookalike: this command needs {error.name}: pip install 'lookalike[cli]'", file=sys.stderr)
        return 1
    except SystemExit as error:  # click's, when a pipe is closed
        return error.code if isinstance(error.code, int) else 1
    except KeyboardInterrupt:
        print("lookalike: stopped", file=sys.stderr)
        return _INTERRUPTED


def _leave(status: int) -> NoReturn:
    """Ends the process at once. All that has an end has come to it by now, but for an engine that was stopped
    while it started, and to take apart an interpreter that has torch takes over a second.
    """
    with suppress(OSError, KeyError):  # torch makes it when it traces; one that holds something stays
        os.rmdir(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    for stream in (sys.stdout, sys.stderr):
        with suppress(
            OSError, ValueError, AttributeError
        ):  # nobody reads it; it is closed; it never was open
            stream.flush()
    os._exit(status)
