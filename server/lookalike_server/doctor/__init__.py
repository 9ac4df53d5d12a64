"""`lookalike doctor`: whether this installation can serve, and what to do where it cannot.

Each check looks at one thing and tells one finding. What a check raises is its finding too, so that one
broken part never hides the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lookalike_extractor.errors import LookalikeError

from lookalike_server.config import Settings
from lookalike_server.doctor import machine, places
from lookalike_server.doctor.findings import Doubt, Finding

__all__ = ["Finding", "examine"]

Check = Callable[[Settings], str]

_REPAIR = "Install Lookalike again, as README.md says."

CHECKS: dict[str, Check] = {
    "versions": machine.versions,
    "torchvision": machine.torchvision_fits,
    "device": machine.device,
    "threads": machine.thread_counts,
    "front-ends": machine.front_ends,
    "memory": machine.memory,
    "decoders": machine.decoders,
    "gpu decode": machine.gpu_decode,
    "weights": machine.weights,
    "data": places.data,
    "lock": places.lock,
    "address": places.address,
    "certificate": places.certificate,
    "tokens": places.tokens,
    "canary": machine.canary,
}


def examine(settings: Settings) -> Iterator[Finding]:
    """Yields the finding of each check, as soon as it is there; the last one takes seconds."""
    for name, check in CHECKS.items():
        yield _finding(name, check, settings)


def _finding(name: str, check: Check, settings: Settings) -> Finding:
    try:
        return Finding(name, "ok", check(settings))
    except Doubt as doubt:
        return Finding(name, *doubt.finding)
    except LookalikeError as error:
        return Finding(name, "fail", error.message)
    except Exception as error:
        return Finding(name, "fail", f"{type(error).__name__}: {error}", _REPAIR)
