"""What is done for a collection as a whole, by the blocking client."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import grpc

from lookalike import _shared, _wire
from lookalike._backups import BackupFile
from lookalike.records import CollectionInfo, VerifyReport
from lookalike.v1 import collections_pb2, collections_pb2_grpc

if TYPE_CHECKING:
    from lookalike.client import Client


class UpkeepCalls:
    """The part of `Collection` that is about its indexes, its health and its copies."""

    name: str
    _client: Client
    _collections: collections_pb2_grpc.CollectionServiceStub

    def configure_index(
        self,
        kind: str = "auto",
        *,
        target_recall: float = 0.98,
        storage: str = "fp16",
        timeout: float | None = None,
    ) -> CollectionInfo:
        """Chooses how searches go through the collection; the index is made in the background.

        Args:
            kind: "auto", "exact", or a factory string of FAISS, as "HNSW32,SQ8" or "IVF4096,PQ64x4fs".
            target_recall: share of the ten nearest that searches should find, 0.5 to 1.
            storage: of descriptors in an index of "auto": "fp16", "int8" or "pq".

        `info().index` tells when it is there, and what recall was measured.
        """
        request = collections_pb2.ConfigureIndexRequest(
            name=self.name, settings=_wire.index_settings(kind, target_recall, storage)
        )
        answer = self._client._call(self._collections.ConfigureIndex, request, timeout)
        return _wire.collection_info(answer.collection)

    def set_attribute_indexes(
        self, attributes: Iterable[str], *, timeout: float | None = None
    ) -> CollectionInfo:
        """Chooses the attributes that filters find through an index, as "price" or "size.width".

        In place of those before; it returns when the indexes are made. Writes wait meanwhile.
        """
        request = collections_pb2.SetAttributeIndexesRequest(
            name=self.name, attribute_indexes=_wire.names(attributes)
        )
        answer = self._client._call(self._collections.SetAttributeIndexes, request, timeout)
        return _wire.collection_info(answer.collection)

    def verify(self, *, timeout: float | None = None) -> VerifyReport:
        """Has the server read everything it stores of this collection, and compare all copies of it."""
        request = collections_pb2.VerifyCollectionRequest(name=self.name)
        answer = self._client._call(self._collections.VerifyCollection, request, timeout)
        return _wire.verify_report(answer)

    def backup(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> int:
        """Copies the collection, as it is now, to a new file here, while others go on writing.

        Returns the number of the last write in it. The file is whole or not there. `Client.restore` makes a
        collection of it. Raises FileExistsError when the file is there already.
        """
        request = collections_pb2.BackupCollectionRequest(name=self.name)
        with BackupFile(path) as file:
            try:
                for piece in self._collections.BackupCollection(request, timeout=timeout):
                    file.take(piece)
            except grpc.RpcError as error:
                raise _shared.error_of(error, self._client.target) from None
        return file.sequence
