"""ItemService: items are written, read and deleted."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.rpc import status_pb2
from lookalike.v1 import items_pb2 as pb
from lookalike.v1 import items_pb2_grpc
from lookalike_extractor.errors import LookalikeError

from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.config import Settings
from lookalike_server.engine import Engine, Source
from lookalike_server.errors import ArgumentInvalid, ItemUnknown
from lookalike_server.rows import NewRow, Row, Written, check_id, compact_attributes
from lookalike_server.services.spaces import (
    check_count,
    check_space,
    descriptor_from_wire,
    embedded,
    in_thread,
    named,
)
from lookalike_server.services.streams import answer_chunks
from lookalike_server.services.tokens import make_token, read_token
from lookalike_server.wire import array_to_tensor, image_from_wire, status_of

MOST_IDS = 1000
_DEFAULT_PAGE = 100
_AFTER = struct.Struct("<q")
_MOST_SEQUENCE = 2**63 - 1


@dataclass(frozen=True)
class _Draft:
    """An item whose descriptor is still to be computed."""

    id: str
    attributes_json: str
    image: Source


class ItemServicer(items_pb2_grpc.ItemServiceServicer):
    def __init__(self, catalog: Catalog, engine: Engine, settings: Settings) -> None:
        self._catalog = catalog
        self._engine = engine
        self._max_items = settings.max_images_per_message

    async def UpsertItems(  # noqa: N802
        self, request: pb.UpsertItemsRequest, context: Any
    ) -> pb.UpsertItemsResponse:
        collection = self._catalog.get(request.collection)
        check_count(len(request.items), self._max_items, "items")
        drafts = [_raised(draft) for draft in _drafts(request.items, collection, "")]
        rows = await self._rows(drafts, collection, "", wait=False)
        return _answer(await _upserted(collection, [_raised(row) for row in rows]))

    async def UpsertItemsStream(  # noqa: N802
        self, requests: AsyncIterator[pb.UpsertItemsStreamRequest], context: Any
    ) -> AsyncIterator[pb.UpsertItemsStreamResponse]:
        turn = asyncio.Event()
        turn.set()

        async def answer(chunk: pb.UpsertItemsStreamRequest) -> pb.UpsertItemsStreamResponse:
            # Chunks are embedded beside each other but written in the order sent: the last of an id wins.
            nonlocal turn
            mine, turn = turn, asyncio.Event()
            following = turn
            try:
                return await self._chunk(chunk, mine)
            finally:
                following.set()

        async for response in answer_chunks(requests, answer, self._engine.draining):
            yield response

    async def _chunk(
        self, chunk: pb.UpsertItemsStreamRequest, turn: asyncio.Event
    ) -> pb.UpsertItemsStreamResponse:
        collection = self._catalog.get(chunk.request.collection)
        check_count(len(chunk.request.items), self._max_items, "request.items")
        drafts = _drafts(chunk.request.items, collection, "request.")
        rows = await self._rows(drafts, collection, "request.", wait=True)
        await turn.wait()
        written = await _upserted(collection, [row for row in rows if isinstance(row, NewRow)])
        return pb.UpsertItemsStreamResponse(
            chunk_id=chunk.chunk_id,
            statuses=[status_pb2.Status() if isinstance(row, NewRow) else status_of(row) for row in rows],
            response=_answer(written),
        )

    async def _rows(
        self,
        drafts: Sequence[NewRow | _Draft | LookalikeError],
        collection: Collection,
        path: str,
        *,
        wait: bool,
    ) -> list[NewRow | LookalikeError]:
        """Returns each draft with its descriptor, or why it has none."""
        images = [draft.image for draft in drafts if isinstance(draft, _Draft)]
        computed = iter(await embedded(self._engine, collection, images, wait=wait))
        rows: list[NewRow | LookalikeError] = []
        for i, draft in enumerate(drafts):
            if not isinstance(draft, _Draft):
                rows.append(draft)
            elif isinstance(result := next(computed), LookalikeError):
                rows.append(named(result, f"{path}items[{i}]", "image"))
            else:
                descriptor, outcome = result
                rows.append(NewRow(draft.id, descriptor, draft.attributes_json, outcome.digest))
        return rows

    async def GetItems(self, request: pb.GetItemsRequest, context: Any) -> pb.GetItemsResponse:  # noqa: N802
        collection = self._catalog.get(request.collection)
        check_count(len(request.ids), MOST_IDS, "ids")
        rows = await in_thread(
            self._catalog.workers, collection.get, list(request.ids), descriptors=request.include_descriptors
        )
        missing = [item_id for item_id in request.ids if item_id not in rows]
        if missing and not request.allow_missing:
            raise ItemUnknown(
                f"Collection {collection.name!r} has no item {missing[0]!r}"
                + (f" and {len(missing) - 1} more of those asked for." if len(missing) > 1 else "."),
                item=missing[0],
            )
        return pb.GetItemsResponse(items=[_item(rows[i]) for i in request.ids if i in rows])

    async def ListItems(self, request: pb.ListItemsRequest, context: Any) -> pb.ListItemsResponse:  # noqa: N802
        collection = self._catalog.get(request.collection)
        size = request.page_size or _DEFAULT_PAGE
        if size > MOST_IDS:
            raise ArgumentInvalid(f"page_size is {size}; at most {MOST_IDS} are allowed.", field="page_size")
        listing = f"{collection.name}\0{request.where}".encode()
        after = min(request.after_sequence, _MOST_SEQUENCE)
        if request.page_token:
            (after,) = _AFTER.unpack(read_token(request.page_token, listing))
        rows = await in_thread(
            self._catalog.workers,
            collection.list,
            after,
            size + 1,
            request.where,
            descriptors=request.include_descriptors,
        )
        page, more = rows[:size], len(rows) > size
        return pb.ListItemsResponse(
            items=map(_item, page),
            next_page_token=make_token(_AFTER.pack(page[-1].k), listing) if more else "",
        )

    async def DeleteItems(  # noqa: N802
        self, request: pb.DeleteItemsRequest, context: Any
    ) -> pb.DeleteItemsResponse:
        collection = self._catalog.get(request.collection)
        check_count(len(request.ids), MOST_IDS, "ids")
        ids = sorted(set(request.ids))
        written = await asyncio.wrap_future(collection.submit_delete(ids))
        return pb.DeleteItemsResponse(
            sequence=written.sequence, deleted=written.deleted, missing=len(ids) - written.deleted
        )


def _drafts(
    items: Sequence[pb.NewItem], collection: Collection, path: str
) -> list[NewRow | _Draft | LookalikeError]:
    """Returns what each item holds, or what is wrong with it; of two with one id the first is right."""
    seen: set[str] = set()
    drafts: list[NewRow | _Draft | LookalikeError] = []
    for i, item in enumerate(items):
        field = f"{path}items[{i}]"
        try:
            if item.id in seen:
                raise ArgumentInvalid(f"{item.id!r} comes twice; one call writes each id once.", field="id")
            drafts.append(_draft(item, collection, field))
            seen.add(item.id)
        except LookalikeError as error:
            drafts.append(named(error, field))
    return drafts


def _draft(item: pb.NewItem, collection: Collection, field: str) -> NewRow | _Draft:
    content = item.WhichOneof("content")
    if content == "descriptor":
        check_space(collection, item.space_id, f"{field}.space_id")
        descriptor = descriptor_from_wire(item.descriptor, collection, f"{field}.descriptor")
        return NewRow(item.id, descriptor, item.attributes_json)
    check_id(item.id)
    attributes = compact_attributes(item.attributes_json)
    if content is None:
        raise ArgumentInvalid("has neither an image nor a descriptor; set one of them.", field="content")
    return _Draft(item.id, attributes, image_from_wire(item.image, f"{field}.image"))


def _raised(value: NewRow | _Draft | LookalikeError) -> Any:
    if isinstance(value, LookalikeError):
        raise value
    return value


async def _upserted(collection: Collection, rows: Sequence[NewRow]) -> Written:
    if not rows:
        return Written(collection.sequence)
    return await asyncio.wrap_future(collection.submit_upsert(rows))


def _answer(written: Written) -> pb.UpsertItemsResponse:
    return pb.UpsertItemsResponse(
        sequence=written.sequence, inserted=written.inserted, replaced=written.replaced
    )


def _item(row: Row) -> pb.Item:
    return pb.Item(
        id=row.id,
        attributes_json=row.attributes_json,
        digest=row.digest,
        sequence=row.k,
        descriptor=None if row.descriptor is None else array_to_tensor(row.descriptor),
    )
