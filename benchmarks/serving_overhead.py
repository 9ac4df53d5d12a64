"""What serving costs besides decoding and the model: CPU per image, with a model of almost nothing.

    python benchmarks/serving_overhead.py --seconds 5
    python benchmarks/serving_overhead.py --seconds 5 --connections 4 --front-ends 2

Prints one row for each way of calling: images a second, CPU microseconds of the server's process per image,
and the same less decoding and the model (in batches of 32), which are timed in the same process beforehand.
The bare rows are gRPC's own: the same messages, parsed and answered with a message that is there already.
With front-ends the CPU is that of the one process behind them, and theirs together stands beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import cycle
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


def cpu_seconds_of_children() -> float:
    """CPU that the processes which this one has started have used (proc(5))."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            ticks += (int(fields[11]) + int(fields[12])) * (int(fields[1]) == os.getpid())
    return ticks / os.sysconf("SC_CLK_TCK")


def serve(front_ends: int, pipe: Any) -> None:
    """The server's process: answers each message on the pipe with the CPU it and its front-ends have used."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is there, for each of its threads
    from lookalike_extractor.images import decode
    from lookalike_server.config import Settings
    from lookalike_server.device import Device, tune_allocator
    from lookalike_server.engine import Engine
    from lookalike_server.fronts.server import FrontEnds
    from lookalike_server.interceptors import CallInterceptor
    from lookalike_server.listening import listen
    from lookalike_server.services.embedding import EmbeddingServicer

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
        settings = Settings(address="127.0.0.1:0", front_ends=front_ends)
        server: grpc.aio.Server
        if front_ends:
            server = FrontEnds(settings, CallInterceptor())
            address = server.address
        else:
            server, address = listen(settings.address, [CallInterceptor()], settings.max_message_bytes)
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(EmbeddingServicer(engine, settings), server)
        handlers = bare_handlers(bare, bare_stream)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bare.Service", handlers)])
        server.add_registered_method_handlers("bare.Service", handlers)
        await server.start()
        pipe.send(address)
        jpeg = await asyncio.to_thread(pipe.recv)
        work_alone(jpeg)
        pipe.send(work_alone(jpeg))
        while await asyncio.to_thread(pipe.recv):
            pipe.send((cpu_seconds(), cpu_seconds_of_children()))
        await server.stop(None)
        await engine.close()

    asyncio.run(main())


def bare_handlers(embed: Any, embed_stream: Any) -> dict[str, Any]:
    pb = embedding_pb2
    return {
        "Embed": grpc.unary_unary_rpc_method_handler(
            embed, pb.EmbedRequest.FromString, pb.EmbedResponse.SerializeToString
        ),
        "EmbedStream": grpc.stream_stream_rpc_method_handler(
            embed_stream, pb.EmbedStreamRequest.FromString, pb.EmbedStreamResponse.SerializeToString
        ),
    }


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


def unary(stubs: Sequence[Any], jpeg: bytes, images: int, seconds: float, callers: int) -> int:
    """Calls from as many callers at once; returns the images that were answered."""
    message, done, limit, turns = request(*[jpeg] * images), 0, time.monotonic() + seconds, cycle(stubs)
    flying = [next(turns).Embed.future(message) for _ in range(callers)]
    while time.monotonic() < limit:
        flying.pop(0).result()
        done += images
        flying.append(next(turns).Embed.future(message))
    for call in flying:
        call.result()
    return done + images * callers


def streamed(stubs: Sequence[Any], jpeg: bytes, images: int, seconds: float) -> int:
    """The same of a stream on each connection."""
    with ThreadPoolExecutor(len(stubs)) as pool:
        return sum(pool.map(lambda stub: one_stream(stub, jpeg, images, seconds), stubs))


def one_stream(stub: Any, jpeg: bytes, images: int, seconds: float) -> int:
    limit = time.monotonic() + seconds
    message = embedding_pb2.EmbedStreamRequest(request=request(*[jpeg] * images))

    def chunks() -> Iterator[embedding_pb2.EmbedStreamRequest]:
        while time.monotonic() < limit:
            yield message

    return sum(len(answer.response.results) for answer in stub.EmbedStream(chunks()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--front-ends", type=int, default=0)
    arguments = parser.parse_args()
    seconds = arguments.seconds
    small = photo("chelsea").resize((256, 170))
    jpeg = encode(small, quality=90)
    ways: dict[str, Callable[[Sequence[Any]], int]] = {
        "unary, 1 image, 16 callers": lambda stubs: unary(stubs, jpeg, 1, seconds, 16),
        "unary, 32 images, 4 callers": lambda stubs: unary(stubs, jpeg, 32, seconds, 4),
        "stream, 1 image a chunk": lambda stubs: streamed(stubs, jpeg, 1, seconds),
        "stream, 32 images a chunk": lambda stubs: streamed(stubs, jpeg, 32, seconds),
    }
    context = multiprocessing.get_context("spawn")
    pipe, far_end = context.Pipe()
    process = context.Process(target=serve, args=(arguments.front_ends, far_end))
    process.start()
    address = pipe.recv()
    pipe.send(jpeg)
    alone = pipe.recv()
    print(f"{len(jpeg):,} bytes a JPEG; decoding and model alone: {alone * 1e6:.0f} us of CPU an image")
    with ExitStack() as stack:
        own = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            stack.enter_context(grpc.insecure_channel(address, own)) for _ in range(arguments.connections)
        ]
        ours = [embedding_pb2_grpc.EmbeddingServiceStub(channel) for channel in channels]
        bare = [BareStub(channel) for channel in channels]
        rows = [(name, way, ours, alone) for name, way in ways.items()]
        rows += [(f"bare: {name}", way, bare, 0.0) for name, way in ways.items()]
        for name, way, stubs, less in rows:
            pipe.send(True)
            (cpu, others), started = pipe.recv(), time.monotonic()
            images = way(stubs)
            elapsed = time.monotonic() - started
            pipe.send(True)
            after, others_after = pipe.recv()
            each, fronts = (after - cpu) / images, (others_after - others) / images
            print(
                f"{name:34s} {images / elapsed:8.0f} images/s {each * 1e6:8.0f} us each, "
                f"{(each - less) * 1e6:8.0f} us besides"
                + (f", {fronts * 1e6:8.0f} us in front-ends" if arguments.front_ends else "")
            )
    pipe.send(False)
    process.join()


if __name__ == "__main__":
    main()
