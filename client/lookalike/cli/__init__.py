"""The command line, `lookalike`. It needs the `cli` extra, and without --server the `server` extra."""

from __future__ import annotations

import os
import sys

_BROUGHT_BY_CLI = {"click", "rich", "PIL", "jinja2", "platformdirs"}


def main() -> int:
    """Runs the command of sys.argv. Returns 0, or 1 for failure, 2 for misuse, 130 for Ctrl-C."""
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
