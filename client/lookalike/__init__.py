"""Lookalike's client: image descriptors, search and duplicates from a Lookalike server.

    from lookalike import Client

    with Client("localhost:50051") as client:
        vector = client.embed("photo.jpg")

gRPC and numpy are loaded when `Client` is first asked for, so that importing this package costs almost
nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lookalike.errors import LookalikeError

if TYPE_CHECKING:
    from lookalike.aio import AsyncClient, AsyncCollection
    from lookalike.client import Client
    from lookalike.collection import Collection

    __version__: str

__all__ = ["AsyncClient", "AsyncCollection", "Client", "Collection", "LookalikeError"]

_HOMES = {
    "AsyncClient": "lookalike.aio",
    "AsyncCollection": "lookalike.aio",
    "Client": "lookalike.client",
    "Collection": "lookalike.collection",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        return import_module("importlib.metadata").version("lookalike")
    raise AttributeError(f"module 'lookalike' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
