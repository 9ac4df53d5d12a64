"""The connection under the blocking client: opened with it, closed with it. Its twin is _aio_connected.py."""

from __future__ import annotations

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


class Connected:
    """What `Client` is besides its calls."""

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
        self._channel: grpc.Channel | None = None
        self._engine: EmbeddedServer | None = None
        access = Access(target, tls, ca, certificate, key, token, plaintext_token)
        self.target = target
        self._timeout = timeout
        self._limits: Limits | None = None
        self._channel = access.channel()
        self._models = models_pb2_grpc.ModelServiceStub(self._channel)
        self._embedding = embedding_pb2_grpc.EmbeddingServiceStub(self._channel)
        self._collections = collections_pb2_grpc.CollectionServiceStub(self._channel)

    @classmethod
    def embedded(cls, data_dir: str | os.PathLike[str] | None = None, **settings: Any) -> Self:
        """A client of a server inside this program, with its collections in `data_dir`.

        Without `data_dir` they are in the user's data directory. `settings` are the server's, as
        `device="cpu"`; `images` tells about how many are to come: for a thousand and more it takes seconds to
        find out which runtime is the fastest. Needs the `server` extra: ExtraMissing tells the line that
        installs it.
        FailedPrecondition when another process has the directory open.
        """
        from lookalike import embedded

        engine = embedded.start(data_dir, **settings)
        client = cls(engine.target)
        client._engine = engine
        return client

    def close(self) -> None:
        """Ends the connection, and the engine of an embedded client. Calls under way end in Cancelled."""
        channel, self._channel = self._channel, None
        engine, self._engine = self._engine, None
        if channel is not None:
            channel.close()
        if engine is not None:
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_channel", None) is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target!r})"

    def _call(self, method: Callable[..., Any], request: Message, timeout: float | None) -> Any:
        """One unary call, its errors made ours."""
        try:
            return method(request, timeout=self._timeout if timeout is None else timeout)
        except grpc.RpcError as error:
            raise _shared.error_of(error, self.target) from None
