"""What a process that only serves sets for itself. An embedded server leaves its program's process alone."""

from __future__ import annotations

import os


def before_torch() -> None:
    """Lets torch's threads sleep when they wait for each other, unless the environment says how they wait.

    To be called before torch is imported: its OpenMP reads the environment when it is loaded. Waiting busily
    is quicker where nothing else runs. Beside an event loop and decoders on the same cores it takes them
    away from the threads that are waited for.
    """
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
