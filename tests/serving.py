"""A real server on a Unix socket in this process, around devices made by hand."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import torch
from google.rpc import error_details_pb2, status_pb2
from lookalike.v1 import embedding_pb2, embedding_pb2_grpc, types_pb2
from lookalike_extractor.preprocessing import Preprocessing
from lookalike_extractor.recipe import Recipe, Space, Tap
from lookalike_server.config import Settings
from lookalike_server.device import Device
from lookalike_server.engine import Engine
from lookalike_server.interceptors import CallInterceptor
from lookalike_server.services.embedding import EmbeddingServicer
from looping import Ready, looping
from torch import nn

TINY = Preprocessing(16, 16, "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class TinyModel(nn.Module):
    """A backbone of two convolutions under the contract of DescriptorModel."""

    def __init__(self, recipe: str = "tiny", preprocessing: Preprocessing = TINY) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.preprocessing = preprocessing
        self.recipe = recipe
        self.pads_one = True
        self.spaces = {recipe: Space(id=f"space-of-{recipe}", dimension=8, recipe=recipe)}
        self.convolutions = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3))
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        pairs = pixels.expand(2, -1, -1, -1) if len(pixels) == 1 else pixels  # as the real ones do
        maps = self.convolutions(pairs.float() / 255)
        return {self.recipe: nn.functional.normalize(maps.mean((2, 3)), dim=1)[: len(pixels)]}


class SlowDevice(Device):
    """Answers one batch each time it is let go, and remembers how large the batches were."""

    def __init__(self) -> None:
        super().__init__([TinyModel()])
        self.go = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.batches: list[int] = []

    def open(self) -> None:
        """Lets go all batches to come."""
        self.go.release(10_000)

    def warm_up(self) -> list[list[tuple[int, float]]]:
        return []

    def run(self, model: int, pixels: Sequence[Any]) -> dict[str, Any]:
        self.batches.append(len(pixels))
        self.entered.release()
        self.go.acquire()
        return super().run(model, pixels)


class SpoiledDevice(Device):
    """Does something else to the model's answers."""

    def __init__(self, spoil: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        super().__init__([TinyModel()])
        self.spoil = spoil

    def warm_up(self) -> list[list[tuple[int, float]]]:
        return []

    def run(self, model: int, pixels: Sequence[Any]) -> dict[str, Any]:
        return self.spoil(super().run(model, pixels))


@dataclass
class Running:
    engine: Engine
    calls: CallInterceptor
    channel: grpc.Channel
    loop: asyncio.AbstractEventLoop
    target: str

    @property
    def embedding(self) -> embedding_pb2_grpc.EmbeddingServiceStub:
        return embedding_pb2_grpc.EmbeddingServiceStub(self.channel)


def recipes_of(device: Device) -> dict[str, Recipe]:
    return {
        name: Recipe(name, "tiny", (Tap("conv"),), None, None, None, 0.9)
        for model in device.models
        for name in model.spaces
    }


@contextmanager
def serving(
    device: Device | None = None, settings: Settings | None = None, **limits: float
) -> Iterator[Running]:
    """A server with the embedding service and nothing else, stopped at the end."""
    device = device or Device([TinyModel()])
    settings = settings or Settings()

    async def main(ready: Ready[Running]) -> None:
        engine = Engine(recipes_of(device), device, **limits)
        await engine.start()
        calls = CallInterceptor()
        server = grpc.aio.server(interceptors=[calls])
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(EmbeddingServicer(engine, settings), server)
        server.add_insecure_port(target)
        await server.start()
        stop = asyncio.Event()
        ready(Running(engine, calls, channel, asyncio.get_running_loop(), target), stop.set)
        await stop.wait()
        await server.stop(None)
        await engine.close()

    with tempfile.TemporaryDirectory() as folder:
        target = f"unix:{folder}/socket"
        with grpc.insecure_channel(target) as channel, looping(main) as running:
            try:
                yield running
            finally:
                if isinstance(device, SlowDevice):
                    device.open()


def request(*images: bytes | np.ndarray, recipes: Sequence[str] = ()) -> embedding_pb2.EmbedRequest:
    return embedding_pb2.EmbedRequest(recipes=recipes, images=[image_of(image) for image in images])


def image_of(image: bytes | np.ndarray) -> types_pb2.Image:
    if isinstance(image, bytes):
        return types_pb2.Image(data=image)
    tensor = types_pb2.Tensor(dtype=types_pb2.DATA_TYPE_UINT8, shape=image.shape, data=image.tobytes())
    return types_pb2.Image(pixels=tensor)


def rows(response: embedding_pb2.EmbedResponse, batch: int = 0) -> np.ndarray:
    """The descriptors of a response, float32 [n, d]."""
    tensor = response.batches[batch].descriptors
    return np.frombuffer(tensor.data, "<f4").reshape(tuple(tensor.shape))


def reason(status: status_pb2.Status) -> str:
    return info(status).reason


def info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    details = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(details)
    return details


def rich_status(error: grpc.RpcError) -> status_pb2.Status:
    """The status that a failed call carries in its trailers."""
    trailers = dict(error.trailing_metadata())  # type: ignore[attr-defined]
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert status.code == error.code().value[0]  # type: ignore[attr-defined]
    return status
