"""The blocking client: one connection to one server. `AsyncClient` in aio.py is its twin."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Literal

import grpc
import numpy as np
from numpy.typing import NDArray

from lookalike import _bulk, _entries, _shared, _streams, _wire
from lookalike._backups import pieces
from lookalike._connected import Connected
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
from lookalike.v1 import collections_pb2, models_pb2


class Client(Connected):
    """A connection to a Lookalike server: one telephone line, which any number of threads may share.

        with Client("localhost:50051") as client:
            vector = client.embed("photo.jpg")

    Close it, or use it as a context manager: forgetting to warns. Every call raises a class of
    `lookalike.errors`; passing troubles of the network are retried first. `timeout` is the gRPC deadline of
    one call in seconds, None for no end.

    Args:
        target: "host:port", "unix:/path/to/socket", or several servers, of which the next is asked when one
            stops: "ipv4:10.0.0.1:50051,10.0.0.2:50051".
        timeout: for calls that are given none themselves; long streams have none unless they are given one.
        tls: encrypts; the server's certificate must be signed by one of the system's authorities.
        ca: file of the certificates (PEM) to believe instead; means tls.
        certificate, key: files (PEM) that prove who the client is, where the server asks for that; mean tls.
        token: what `lookalike token new` printed; sent with every call.
        plaintext_token: lets the token travel unencrypted to another machine.
    """

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
        answers = _streams.exchange(
            self._embedding.EmbedStream,
            lambda chunk: _bulk.embed_request(chunk, recipe),
            _bulk.cut(_entries.image_entries(images, limits), limits),
            self.target,
            timeout,
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
        self,
        name: str,
        recipe: str = "",
        *,
        attribute_indexes: Iterable[str] = (),
        exist_ok: bool = False,
        timeout: float | None = None,
    ) -> Collection:
        """Creates a collection, bound for life to the embedding space of a recipe.

        An empty `recipe` means the server's default; `attribute_indexes` are attributes that filters find
        through an index, see `Collection.set_attribute_indexes`. With `exist_ok`, one that is there already
        is returned as it is; FailedPrecondition when its recipe is another.
        """
        request = collections_pb2.CreateCollectionRequest(
            name=name, recipe=recipe, attribute_indexes=_wire.names(attribute_indexes)
        )
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
        """Deletes a collection and all its items, for good. FailedPrecondition while it has aliases."""
        request = collections_pb2.DeleteCollectionRequest(name=name)
        self._call(self._collections.DeleteCollection, request, timeout)

    def set_alias(self, alias: str, collection: str, *, timeout: float | None = None) -> Collection:
        """Makes a name stand for a collection from now on, in place of another.

        Each call that names the alias finds the one collection or the other, never neither: so a new
        collection is put in the place of an old one. Returns the collection under its alias.
        """
        request = collections_pb2.SetAliasRequest(alias=alias, collection=collection)
        self._call(self._collections.SetAlias, request, timeout)
        return Collection(self, alias)

    def delete_alias(self, alias: str, *, timeout: float | None = None) -> None:
        """Removes an alias. The collection stays."""
        request = collections_pb2.DeleteAliasRequest(alias=alias)
        self._call(self._collections.DeleteAlias, request, timeout)

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
