"""The blocking client: one connection to one server. `AsyncClient` in aio.py is its twin."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Self

import grpc
import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from lookalike import _bulk, _entries, _shared, _streams, _wire
from lookalike._backups import pieces
from lookalike._connection import Access, PathLike
from lookalike._jobs import Jobs
from lookalike.collection import Collection
from lookalike.errors import AlreadyExists
from lookalike.images import ImageLike
from lookalike.records import (
    BackboneInfo,
    CollectionInfo,
    EmbedResult,
    IndexEstimate,
    Limits,
    NodeInfo,
    RecipeInfo,
    ServerInfo,
)
from lookalike.v1 import (
    collections_pb2,
    collections_pb2_grpc,
    embedding_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
)

if TYPE_CHECKING:
    from lookalike_server.app import EmbeddedServer


class Client:
    """A connection to a Lookalike server: one telephone line, which any number of threads may share.

        with Client("localhost:50051") as client:
            vector = client.embed("photo.jpg")

    Close it, or use it as a context manager: forgetting to warns. Every call raises a class of
    `lookalike.errors`; passing troubles of the network are retried first. `timeout` is the gRPC deadline of
    one call in seconds, None for no end.

    Args:
        target: "host:port" or "unix:/path/to/socket".
        timeout: for calls that are given none themselves; long streams have none unless they are given one.
        tls: encrypts; the server's certificate must be signed by one of the system's authorities.
        ca: file of the certificates (PEM) to believe instead; means tls.
        certificate, key: files (PEM) that prove who the client is, where the server asks for that; mean tls.
        token: what `lookalike token new` printed; sent with every call.
        plaintext_token: lets the token travel unencrypted to another machine.
    """

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
        `device="cpu"`. Needs the `server` extra: ExtraMissing tells the line that installs it.
        FailedPrecondition when another process has the directory open.
        """
        from lookalike import embedded

        engine = embedded.start(data_dir, **settings)
        client = cls(engine.target)
        client._engine = engine
        return client

    def embed(
        self, image: ImageLike, recipe: str = "", *, timeout: float | None = None
    ) -> NDArray[np.float32]:
        """The descriptor of one picture: float32 [dimension] of length 1.

        Args:
            image: a path, the bytes of a file, a PIL image, or pixels as uint8 [h, w, 3] RGB or [h, w].
            recipe: empty means the server's default.

        Raises InvalidArgument when the picture cannot be read, NotFound for an unknown recipe.
        """
        limits = self.limits()
        chunk = next(_bulk.cut(_entries.image_entries([image], limits), limits))
        request = _bulk.embed_request(chunk, recipe).request
        answer = self._call(self._embedding.Embed, request, timeout) if chunk.payloads else None
        return _bulk.descriptor_of(next(_bulk.embed_results(chunk, answer)))

    def embed_many(
        self,
        images: Iterable[ImageLike],
        recipe: str = "",
        *,
        on_error: Literal["raise", "report"] = "raise",
        timeout: float | None = None,
    ) -> Iterator[EmbedResult]:
        """The descriptors of any number of pictures, in their order, as they become ready.

        `images` may be a generator: some 64 pictures are read ahead, so memory stays bounded. With
        `on_error="report"` a picture that cannot be used yields a result with `failure` set, and all others
        go on; with "raise" it ends the iteration.
        """
        _bulk.check_on_error(on_error)
        limits = self.limits()
        deadline = _shared.Deadline(timeout)
        answers = _streams.exchange(
            lambda requests: self._embedding.EmbedStream(requests, timeout=deadline.left()),
            lambda chunk: _bulk.embed_request(chunk, recipe),
            _bulk.cut(_entries.image_entries(images, limits), limits),
            self.target,
        )
        for chunk, answer in answers:
            for result in _bulk.embed_results(chunk, answer and answer.response):
                if on_error == "raise":
                    _bulk.descriptor_of(result)
                yield result

    def info(self, *, timeout: float | None = None) -> ServerInfo:
        """The server's version, device and limits."""
        request = models_pb2.GetServerInfoRequest()
        return _wire.server_info(self._call(self._models.GetServerInfo, request, timeout))

    def limits(self) -> Limits:
        """The server's limits, asked for once."""
        if self._limits is None:
            self._limits = self.info().limits
        return self._limits

    def recipes(self, *, timeout: float | None = None) -> list[RecipeInfo]:
        """The recipes this server computes; the first is the default."""
        answer = self._call(self._models.ListRecipes, models_pb2.ListRecipesRequest(), timeout)
        return [_wire.recipe(recipe) for recipe in answer.recipes]

    def backbones(self, *, timeout: float | None = None) -> list[BackboneInfo]:
        """The backbones that the server knows, loaded ones first."""
        answer = self._call(self._models.ListBackbones, models_pb2.ListBackbonesRequest(), timeout)
        return [_wire.backbone(backbone) for backbone in answer.backbones]

    def nodes(self, backbone: str, *, timeout: float | None = None) -> list[NodeInfo]:
        """The nodes of a backbone in the order of execution, with what each yields and costs."""
        request = models_pb2.ListNodesRequest(backbone=backbone)
        return [_wire.node(node) for node in self._call(self._models.ListNodes, request, timeout).nodes]

    def create_collection(
        self, name: str, recipe: str = "", *, exist_ok: bool = False, timeout: float | None = None
    ) -> Collection:
        """Creates a collection, bound for life to the embedding space of a recipe.

        An empty `recipe` means the server's default. With `exist_ok`, one that is there already is returned;
        FailedPrecondition when its recipe is another.
        """
        request = collections_pb2.CreateCollectionRequest(name=name, recipe=recipe)
        try:
            self._call(self._collections.CreateCollection, request, timeout)
        except AlreadyExists:
            if not exist_ok:
                raise
            _wire.check_recipe(Collection(self, name).info(timeout=timeout), recipe)
        return Collection(self, name)

    def collection(self, name: str, *, timeout: float | None = None) -> Collection:
        """A collection that is there. Raises NotFound, with the nearest names, when there is none."""
        collection = Collection(self, name)
        collection.info(timeout=timeout)
        return collection

    def collections(self, *, timeout: float | None = None) -> list[CollectionInfo]:
        """All collections by name."""
        request = collections_pb2.ListCollectionsRequest()
        answer = self._call(self._collections.ListCollections, request, timeout)
        return [_wire.collection_info(collection) for collection in answer.collections]

    def delete_collection(self, name: str, *, timeout: float | None = None) -> None:
        """Deletes a collection and all its items, for good."""
        request = collections_pb2.DeleteCollectionRequest(name=name)
        self._call(self._collections.DeleteCollection, request, timeout)

    @property
    def jobs(self) -> Jobs:
        """The searches for duplicates on this server."""
        return Jobs(self)

    def estimate_index(
        self,
        item_count: int,
        dimension: int,
        kind: str = "auto",
        *,
        storage: str = "fp16",
        timeout: float | None = None,
    ) -> IndexEstimate:
        """What a collection of so many items would take; `Collection.configure_index` tells the arguments."""
        request = collections_pb2.EstimateIndexRequest(
            item_count=item_count, dimension=dimension, settings=_wire.index_settings(kind, 0, storage)
        )
        return _wire.index_estimate(self._call(self._collections.EstimateIndex, request, timeout))

    def restore(
        self, path: str | os.PathLike[str], name: str = "", *, timeout: float | None = None
    ) -> Collection:
        """Makes a collection of a file that `Collection.backup` wrote, under another name when one is given.

        It is there with all its items, or nothing is. Raises AlreadyExists when the name is taken, DataLoss
        when the file is damaged.
        """
        try:
            answer = self._collections.RestoreCollection(pieces(path, name), timeout=timeout)
        except grpc.RpcError as error:
            raise _shared.error_of(error, self.target) from None
        return Collection(self, answer.collection.name)

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
        return f"Client({self.target!r})"

    def _call(self, method: Callable[..., Any], request: Message, timeout: float | None) -> Any:
        """One unary call, its errors made ours."""
        try:
            return method(request, timeout=self._timeout if timeout is None else timeout)
        except grpc.RpcError as error:
            raise _shared.error_of(error, self.target) from None
