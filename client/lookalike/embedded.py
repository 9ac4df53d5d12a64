"""The engine inside this program, for `Client.embedded`: the same server, on a Unix socket of its own."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lookalike import _shared
from lookalike.errors import ExtraMissing

if TYPE_CHECKING:
    from lookalike_server.app import EmbeddedServer


def start(data_dir: str | os.PathLike[str] | None, images: int = 0, **settings: Any) -> EmbeddedServer:
    """Starts it on `data_dir` (None: the user's data directory), for about so many images.

    Raises ExtraMissing without the `server` extra, FailedPrecondition when another process has the directory.
    """
    directory, loading, errors = _part("directory"), _part("loading"), _part("errors")
    try:
        loaded = loading.load_settings({"data": data_dir, **settings})
        directory.check(loaded.data)  # first of all: what comes now takes seconds
        server: EmbeddedServer = _part("app").EmbeddedServer(loaded, images)
    except errors.LookalikeError as error:
        raise _shared.error_class(error.status)(error.message, error.reason, error.metadata) from None
    return server


def _part(name: str) -> Any:
    try:
        import_module("lookalike_server")  # what was imported of a package that is gone would still be found
        return import_module(f"lookalike_server.{name}")
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            "the engine is not installed here: pip install 'lookalike[server]', or give the address of a "
            f"server ({error})",
            "EXTRA_MISSING",
        ) from None
