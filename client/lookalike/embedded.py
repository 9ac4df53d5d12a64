"""The engine inside this program, for `Client.embedded`: the same server, on a Unix socket of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from lookalike import _shared
from lookalike.errors import ExtraMissing

if TYPE_CHECKING:
    from lookalike_server.app import EmbeddedServer


def start(data_dir: str | os.PathLike[str] | None, images: int = 0, **settings: Any) -> EmbeddedServer:
    """Starts it on `data_dir` (None: the user's data directory), for about so many images.

    Raises ExtraMissing without the `server` extra, FailedPrecondition when another process has the directory.
    """
    try:
        import lookalike_server.app
        import lookalike_server.loading
        from lookalike_extractor.errors import LookalikeError
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            "the engine is not installed here: pip install 'lookalike[server]', or give the address of a "
            f"server ({error})",
            "EXTRA_MISSING",
        ) from None
    try:
        loaded = lookalike_server.loading.load_settings({"data": data_dir, **settings})
        return lookalike_server.app.EmbeddedServer(loaded, images)
    except LookalikeError as error:
        raise _shared.error_class(error.status)(error.message, error.reason, error.metadata) from None
