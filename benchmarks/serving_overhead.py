"""What serving costs besides decoding and the model: CPU per image, with a model of almost nothing.

    python benchmarks/serving_overhead.py --seconds 5

Prints one row for each way of calling: images a second, CPU microseconds of the server's process per image,
and the same less decoding and the model (in batches of 32), which are timed in the same process beforehand.
The bare rows are gRPC's own: the same messages, parsed and answered with a message that is there already.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from lookalike.v1 import embedding_pb2, embedding_pb2_grpc
from photos import encode, photo
from serving import TINY, TinyModel, recipes_of, request


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def serve(target: str, pipe: Any) -> None:
    """The server's process: answers each message on the pipe with the CPU it has used."""
    import torch
    from lookalike_extractor.images import decode
    from lookalike_server.config import Settings
    from lookalike_server.device import Device, tune_allocator
    from lookalike_server.engine import Engine
    from lookalike_server.interceptors import CallInterceptor
    from lookalike_server.services.embedding import EmbeddingServicer

    torch.set_num_threads(1)
    tune_allocator()
    device = Device([TinyModel()])

    def work_alone(jpeg: bytes, count: int = 256) -> float:
        before = cpu_seconds()
        for _ in range(count // 32):
            device.run(0, [decode(jpeg, TINY) for _ in range(32)])
        return (cpu_seconds() - before) / count

    async def bare(request: Any, context: Any) -> Any:
        return embedding_pb2.EmbedResponse(results=[{} for _ in request.images])

    async def bare_stream(requests: Any, context: Any) -> Any:
        async for chunk in requests:
            yield embedding_pb2.EmbedStreamResponse(response=await bare(chunk.request, context))

    async def main() -> None:
        engine = Engine(recipes_of(device), device, decode_threads=1)
        await engine.start()
        server = grpc.aio.server(
            interceptors=[CallInterceptor()], options=[("grpc.max_receive_message_length", 64 << 20)]
        )
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(
            EmbeddingServicer(engine, Settings()), server
        )
        server.add_generic_rpc_handlers([bare_handlers(bare, bare_stream)])
        server.add_insecure_port(target)
        await server.start()
        jpeg = await asyncio.to_thread(pipe.recv)
        work_alone(jpeg)
        pipe.send(work_alone(jpeg))
        while await asyncio.to_thread(pipe.recv):
            pipe.send(cpu_seconds())
        await server.stop(None)
        await engine.close()

    asyncio.run(main())


def bare_handlers(embed: Any, embed_stream: Any) -> grpc.GenericRpcHandler:
    pb = embedding_pb2
    return grpc.method_handlers_generic_handler(
        "bare.Service",
        {
            "Embed": grpc.unary_unary_rpc_method_handler(
                embed, pb.EmbedRequest.FromString, pb.EmbedResponse.SerializeToString
            ),
            "EmbedStream": grpc.stream_stream_rpc_method_handler(
                embed_stream, pb.EmbedStreamRequest.FromString, pb.EmbedStreamResponse.SerializeToString
            ),
        },
    )


class BareStub:
    def __init__(self, channel: grpc.Channel) -> None:
        pb = embedding_pb2
        self.Embed = channel.unary_unary(
            "/bare.Service/Embed", pb.EmbedRequest.SerializeToString, pb.EmbedResponse.FromString
        )
        self.EmbedStream = channel.stream_stream(
            "/bare.Service/EmbedStream",
            pb.EmbedStreamRequest.SerializeToString,
            pb.EmbedStreamResponse.FromString,
        )


def unary(stub: Any, jpeg: bytes, images: int, seconds: float, callers: int) -> int:
    """Calls from as many callers at once; returns the images that were answered."""
    message, done, limit = request(*[jpeg] * images), 0, time.monotonic() + seconds
    flying = [stub.Embed.future(message) for _ in range(callers)]
    while time.monotonic() < limit:
        flying.pop(0).result()
        done += images
        flying.append(stub.Embed.future(message))
    for call in flying:
        call.result()
    return done + images * callers


def streamed(stub: Any, jpeg: bytes, images: int, seconds: float) -> int:
    limit = time.monotonic() + seconds
    message = embedding_pb2.EmbedStreamRequest(request=request(*[jpeg] * images))

    def chunks() -> Iterator[embedding_pb2.EmbedStreamRequest]:
        while time.monotonic() < limit:
            yield message

    return sum(len(answer.response.results) for answer in stub.EmbedStream(chunks()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    small = photo("chelsea").resize((256, 170))
    jpeg = encode(small, quality=90)
    ways: dict[str, Callable[[Any], int]] = {
        "unary, 1 image, 16 callers": lambda stub: unary(stub, jpeg, 1, seconds, 16),
        "unary, 32 images, 4 callers": lambda stub: unary(stub, jpeg, 32, seconds, 4),
        "stream, 1 image a chunk": lambda stub: streamed(stub, jpeg, 1, seconds),
        "stream, 32 images a chunk": lambda stub: streamed(stub, jpeg, 32, seconds),
    }
    context = multiprocessing.get_context("spawn")
    pipe, far_end = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        target = f"unix:{folder}/socket"
        process = context.Process(target=serve, args=(target, far_end))
        process.start()
        pipe.send(jpeg)
        alone = pipe.recv()
        print(f"{len(jpeg):,} bytes a JPEG; decoding and model alone: {alone * 1e6:.0f} us of CPU an image")
        with grpc.insecure_channel(target) as channel:
            ours, bare = embedding_pb2_grpc.EmbeddingServiceStub(channel), BareStub(channel)
            rows = [(name, way, ours, alone) for name, way in ways.items()]
            rows += [(f"bare: {name}", way, bare, 0.0) for name, way in ways.items()]
            for name, way, stub, less in rows:
                pipe.send(True)
                cpu, started = pipe.recv(), time.monotonic()
                images = way(stub)
                elapsed = time.monotonic() - started
                pipe.send(True)
                each = (pipe.recv() - cpu) / images
                print(
                    f"{name:34s} {images / elapsed:8.0f} images/s {each * 1e6:8.0f} us each, "
                    f"{(each - less) * 1e6:8.0f} us besides"
                )
        pipe.send(False)
        process.join()


if __name__ == "__main__":
    main()
