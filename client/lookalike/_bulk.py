"""Long lists on their way to the server: cut into chunks, a few of them in flight, answered in order.

    entries -> chunks -> window -> (the stream of the blocking or the asynchronous client) -> answered chunks

An entry that failed on this side travels along in its chunk without being sent, so that order is kept.
Nothing here talks to a server: the two clients share it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, TypeVar

import numpy as np
from google.rpc import status_pb2
from numpy.typing import NDArray

from lookalike import _wire
from lookalike._entries import Entry, Payload
from lookalike.errors import ImageUnusable, InvalidArgument
from lookalike.records import EmbedResult, Failure, Limits
from lookalike.v1 import embedding_pb2, items_pb2

IN_FLIGHT = 4
"""Chunks sent and not yet answered: enough to keep a server busy, few enough to bound memory."""
_CHUNK_IMAGES = 16
_CHUNK_BYTES = 16 * 2**20
_OVERHEAD = 1024  # bytes of a message besides its images

Answer = TypeVar("Answer")


@dataclass(slots=True)
class Chunk(Generic[Payload]):
    id: int
    entries: list[Entry[Payload]] = field(default_factory=list)
    size: int = _OVERHEAD

    @property
    def payloads(self) -> list[Payload]:
        return [entry.payload for entry in self.entries if entry.payload is not None]

    def has_room(self, entry: Entry[Payload], size: int, limits: Limits) -> bool:
        """An id comes once in a chunk: the server would refuse the second."""
        return (
            len(self.entries) < min(_CHUNK_IMAGES, limits.max_images_per_message)
            and self.size + size <= min(_CHUNK_BYTES, limits.max_message_bytes)
            and not (entry.id and any(entry.id == other.id for other in self.entries))
        )


def cut(entries: Iterable[Entry[Payload]], limits: Limits) -> Iterator[Chunk[Payload]]:
    """Chunks bounded in entries and bytes. What fits into no message fails alone."""
    numbers = count()
    chunk: Chunk[Payload] = Chunk(next(numbers))
    for entry in entries:
        entry = _sendable(entry, limits)
        size = 0 if entry.payload is None else entry.payload.ByteSize() + 16
        if chunk.entries and not chunk.has_room(entry, size, limits):
            yield chunk
            chunk = Chunk(next(numbers))
        chunk.entries.append(entry)
        chunk.size += size
    if chunk.entries:
        yield chunk


def _sendable(entry: Entry[Payload], limits: Limits) -> Entry[Payload]:
    size = 0 if entry.payload is None else entry.payload.ByteSize() + 16 + _OVERHEAD
    if size <= limits.max_message_bytes:
        return entry
    error = ImageUnusable(
        f"it takes a message of {size:,} bytes, the server reads at most {limits.max_message_bytes:,}; "
        "send the file instead of its pixels, or make it smaller",
        "IMAGE_TOO_LARGE",
    )
    return Entry(entry.index, entry.source, entry.id, None, error)


class Window(Generic[Payload, Answer]):
    """Chunks in flight, in the order they were taken. Answers come in any order and leave in this one."""

    def __init__(self, chunks: Iterator[Chunk[Payload]]) -> None:
        self._chunks = chunks
        self._taken: deque[Chunk[Payload]] = deque()
        self._answers: dict[int, Answer | None] = {}
        self.all_taken = False

    def take(self) -> Chunk[Payload] | None:
        """The next chunk that has something to send, or None when the window is full or all is taken."""
        while len(self._taken) < IN_FLIGHT and not self.all_taken:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.all_taken = True
                return None
            self._taken.append(chunk)
            if chunk.payloads:
                return chunk
            self._answers[chunk.id] = None
        return None

    def answer(self, chunk_id: int, answer: Answer) -> None:
        if any(chunk.id == chunk_id for chunk in self._taken):
            self._answers[chunk_id] = answer

    def unanswered(self) -> list[Chunk[Payload]]:
        return [chunk for chunk in self._taken if chunk.id not in self._answers]

    def answered(self) -> Iterator[tuple[Chunk[Payload], Answer | None]]:
        """The answered chunks at the front; they leave the window. A chunk never sent has the answer None."""
        while self._taken and self._taken[0].id in self._answers:
            chunk = self._taken.popleft()
            yield chunk, self._answers.pop(chunk.id)

    def __bool__(self) -> bool:
        return bool(self._taken)


def embed_request(chunk: Chunk[Any], recipe: str) -> embedding_pb2.EmbedStreamRequest:
    request = embedding_pb2.EmbedRequest(recipes=[recipe] if recipe else [], images=chunk.payloads)
    return embedding_pb2.EmbedStreamRequest(chunk_id=chunk.id, request=request)


def upsert_request(chunk: Chunk[items_pb2.NewItem], collection: str) -> items_pb2.UpsertItemsStreamRequest:
    request = items_pb2.UpsertItemsRequest(collection=collection, items=chunk.payloads)
    return items_pb2.UpsertItemsStreamRequest(chunk_id=chunk.id, request=request)


def embed_results(chunk: Chunk[Any], answer: embedding_pb2.EmbedResponse | None) -> Iterator[EmbedResult]:
    """One result for each entry of the chunk, in order."""
    wire = iter(answer.results if answer else ())
    rows = _wire.matrix(answer.batches[0].descriptors) if answer and answer.batches else None
    for entry in chunk.entries:
        if entry.payload is None:
            yield EmbedResult(entry.index, entry.source, failure=entry_failure(entry))
        else:
            yield _embed_result(entry, next(wire), rows)


def _embed_result(entry: Entry[Any], wire: embedding_pb2.ImageResult, rows: Any) -> EmbedResult:
    failed = wire.status.code != 0
    return EmbedResult(
        entry.index,
        entry.source,
        None if failed else rows[wire.row].copy(),  # a view would keep the whole chunk's answer alive
        _wire.failure_from_status(entry.source, "", wire.status) if failed else None,
        wire.width,
        wire.height,
        wire.digest,
    )


def check_on_error(on_error: str) -> None:
    if on_error not in ("raise", "report"):
        raise InvalidArgument(f"on_error is 'raise' or 'report', not {on_error!r}", "ARGUMENT_INVALID")


def descriptor_of(result: EmbedResult) -> NDArray[np.float32]:
    """Raises what kept a picture from having one."""
    if result.failure is not None:
        raise _wire.error_of_failure(result.failure)
    assert result.descriptor is not None  # one of the two is set
    return result.descriptor


def upsert_failures(chunk: Chunk[items_pb2.NewItem], statuses: Iterable[status_pb2.Status]) -> list[Failure]:
    """The entries of an acknowledged chunk that were not written."""
    wire = iter(statuses)
    failures = []
    for entry in chunk.entries:
        if entry.payload is None:
            failures.append(entry_failure(entry))
        elif (status := next(wire)).code != 0:
            failures.append(_wire.failure_from_status(entry.source, entry.id, status))
    return failures


def entry_failure(entry: Entry[Any]) -> Failure:
    assert entry.error is not None  # an entry has a payload or an error
    return _wire.failure(entry.source, entry.id, entry.error)
