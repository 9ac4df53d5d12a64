"""The connection under the asynchronous client: the twin of _connected.py."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf.message import Message

from lookalike import _shared
from lookalike._connection import Access, PathLike
from lookalike.records import Limits
from lookalike.v1 import collections_pb2_grpc, embedding_pb2_grpc, models_pb2_grpc

if TYPE_CHECKING:
    from lookalike_server.app import EmbeddedServer


class AsyncConnected:
    """What `AsyncClient` is besides its calls."""

    def __init__(
        self,
        target: str,
        *,
        timeout: float | None = None,
        tls: bool = False,
        ca: PathLike | None = None,
        certificate: PathLike | None = None,
        key: PathLike | None = None,
        token: str | None = None,
        plaintext_token: bool = False,
    ) -> None:
        self._channel: grpc.aio.Channel | None = None
        self._engine: EmbeddedServer | None = None
        access = Access(target, tls, ca, certificate, key, token, plaintext_token)
        self.target = target
        self._timeout = timeout
        self._limits: Limits | None = None
        self._channel = access.aio_channel()
        self._models = models_pb2_grpc.ModelServiceStub(self._channel)
        self._embedding: Any = embedding_pb2_grpc.EmbeddingServiceStub(self._channel)
        self._collections: Any = collections_pb2_grpc.CollectionServiceStub(self._channel)

    @classmethod
    async def embedded(cls, data_dir: str | os.PathLike[str] | None = None, **settings: Any) -> Self:
        """Like `Client.embedded`."""
        from lookalike import embedded

        engine = await asyncio.to_thread(embedded.start, data_dir, **settings)
        client = cls(engine.target)
        client._engine = engine
        return client

    async def close(self) -> None:
        """Like `Client.close`."""
        channel, self._channel = self._channel, None
        engine, self._engine = self._engine, None
        if channel is not None:
            await channel.close()
        if engine is not None:
            await asyncio.to_thread(engine.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __del__(self) -> None:
        if getattr(self, "_channel", None) is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target!r})"

    async def _call(self, method: Callable[..., Any], request: Message, timeout: float | None) -> Any:
        try:
            return await method(request, timeout=self._timeout if timeout is None else timeout)
        except grpc.RpcError as error:
            raise _shared.error_of(error, self.target) from None
