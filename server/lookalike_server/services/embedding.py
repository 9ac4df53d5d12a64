"""EmbeddingService: images in, descriptors out, nothing stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import numpy as np
from lookalike.v1 import embedding_pb2 as pb
from lookalike.v1 import embedding_pb2_grpc
from lookalike_extractor.errors import ImageError
from lookalike_extractor.recipe import Space

from lookalike_server.config import Settings
from lookalike_server.engine import Engine, Outcome, Source
from lookalike_server.errors import ArgumentInvalid, MessageTooLarge
from lookalike_server.services.streams import answer_chunks
from lookalike_server.wire import array_to_tensor, duration, image_from_wire, space_to_wire, status_of


class EmbeddingServicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._max_images = settings.max_images_per_message

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:  # noqa: N802
        return await self._embed(request, "", wait=False)

    async def EmbedStream(  # noqa: N802
        self, requests: AsyncIterator[pb.EmbedStreamRequest], context: Any
    ) -> AsyncIterator[pb.EmbedStreamResponse]:
        async for response in answer_chunks(requests, self._chunk, self._engine.draining):
            yield response

    async def _chunk(self, chunk: pb.EmbedStreamRequest) -> pb.EmbedStreamResponse:
        response = await self._embed(chunk.request, "request.", wait=True)
        return pb.EmbedStreamResponse(chunk_id=chunk.chunk_id, response=response)

    async def _embed(self, request: pb.EmbedRequest, path: str, *, wait: bool) -> pb.EmbedResponse:
        names = self._recipes(request, path)
        sources = self._sources(request, path)
        sent = [source for source in sources if not isinstance(source, ImageError)]
        # Those of this moment: when the images are done the recipes may be others.
        spaces = {name: self._engine.spaces[name] for name in names}
        computed = iter(await self._engine.embed(sent, names, wait=wait))
        outcomes = [
            Outcome(error=source) if isinstance(source, ImageError) else next(computed) for source in sources
        ]
        return _response(outcomes, spaces)

    def _recipes(self, request: pb.EmbedRequest, path: str) -> list[str]:
        names = [self._engine.recipe_name(name) for name in request.recipes or [""]]
        if len(set(names)) < len(names):
            raise ArgumentInvalid(f"{path}recipes names one recipe twice.", field=f"{path}recipes")
        return names

    def _sources(self, request: pb.EmbedRequest, path: str) -> list[Source | ImageError]:
        count, field = len(request.images), f"{path}images"
        if not count:
            raise ArgumentInvalid(f"{field} is empty; send at least one image.", field=field)
        if count > self._max_images:
            raise MessageTooLarge(f"{field} holds {count}; send at most {self._max_images}.", field=field)
        return [_source(image, f"{field}[{i}]") for i, image in enumerate(request.images)]


def _response(outcomes: Sequence[Outcome], spaces: Mapping[str, Space]) -> pb.EmbedResponse:
    good = [outcome for outcome in outcomes if outcome.error is None]
    return pb.EmbedResponse(
        results=_results(outcomes),
        batches=[_batch(name, space, good) for name, space in spaces.items()],
        receipt=_receipt(outcomes),
    )


def _batch(name: str, space: Space, good: Sequence[Outcome]) -> pb.DescriptorBatch:
    rows = np.empty((len(good), space.dimension), np.float32)
    for row, outcome in zip(rows, good, strict=True):
        row[:] = outcome.descriptors[name]
    return pb.DescriptorBatch(recipe=name, space=space_to_wire(space), descriptors=array_to_tensor(rows))


def _source(image: Any, field: str) -> Source | ImageError:
    try:
        return image_from_wire(image, field)
    except ImageError as error:
        return error


def _results(outcomes: Sequence[Outcome]) -> list[pb.ImageResult]:
    results, row = [], 0
    for outcome in outcomes:
        result = pb.ImageResult(width=outcome.width, height=outcome.height, digest=outcome.digest)
        if outcome.error is None:
            result.row = row
            row += 1
        else:
            result.status.CopyFrom(status_of(outcome.error))
        results.append(result)
    return results


def _receipt(outcomes: Sequence[Outcome]) -> pb.Receipt:
    """The device's time counts each batch once: images of one batch carry the same time to the last digit."""
    return pb.Receipt(
        decode=duration(sum(outcome.decode_s for outcome in outcomes)),
        queue=duration(max(outcome.queue_s for outcome in outcomes)),
        device=duration(sum({outcome.device_s for outcome in outcomes})),
        cached=sum(outcome.origin in ("cached", "shared") for outcome in outcomes),
    )
