"""What queries look for: images, descriptors and items become descriptors of the collection's space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lookalike.v1 import search_pb2 as pb
from lookalike_extractor.errors import LookalikeError

from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.engine import Engine, Source
from lookalike_server.errors import ArgumentInvalid, ItemUnknown
from lookalike_server.rows import Descriptor, check_id
from lookalike_server.services.spaces import check_space, descriptor_from_wire, embedded, in_thread, named
from lookalike_server.wire import image_from_wire


class Queries:
    """Turns queries into descriptors; a query that cannot be answered fails alone."""

    def __init__(self, catalog: Catalog, engine: Engine) -> None:
        self._catalog = catalog
        self._engine = engine

    async def descriptors(
        self, queries: Sequence[pb.Query], collection: Collection
    ) -> list[Descriptor | LookalikeError]:
        """Returns what each query looks for, or why it cannot be answered."""
        ready: dict[int, Descriptor | LookalikeError] = {}
        images: dict[int, Source] = {}
        ids: dict[int, str] = {}
        for i, query in enumerate(queries):
            path = f"queries[{i}]"
            try:
                match query.WhichOneof("query"):
                    case "image":
                        images[i] = image_from_wire(query.image, f"{path}.image")
                    case "item_id":
                        check_id(query.item_id)
                        ids[i] = query.item_id
                    case "descriptor":
                        check_space(collection, query.space_id, f"{path}.space_id")
                        ready[i] = descriptor_from_wire(query.descriptor, collection, f"{path}.descriptor")
                    case _:
                        raise ArgumentInvalid(
                            "is not set; send an image, a descriptor or an id.", field="query"
                        )
            except LookalikeError as error:
                ready[i] = named(error, path, "item_id")
        ready |= await self._of_images(images, collection)
        ready |= await self._of_items(ids, collection)
        return [ready[i] for i in range(len(queries))]

    async def _of_images(
        self, images: Mapping[int, Source], collection: Collection
    ) -> dict[int, Descriptor | LookalikeError]:
        results = await embedded(self._engine, collection, list(images.values()), wait=False)
        return {
            i: named(result, f"queries[{i}]", "image") if isinstance(result, LookalikeError) else result[0]
            for i, result in zip(images, results, strict=True)
        }

    async def _of_items(
        self, ids: Mapping[int, str], collection: Collection
    ) -> dict[int, Descriptor | LookalikeError]:
        if not ids:
            return {}
        rows = await in_thread(self._catalog.workers, collection.get, list(ids.values()), descriptors=True)
        found: dict[int, Descriptor | LookalikeError] = {}
        for i, item_id in ids.items():
            row = rows.get(item_id)
            if row is None or row.descriptor is None:
                fault = ItemUnknown(f"Collection {collection.name!r} has no item {item_id!r}.", item=item_id)
                found[i] = named(fault, f"queries[{i}]", "item_id")
            else:
                found[i] = row.descriptor
        return found
