"""Servers with front-ends, and a look at their processes."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from lookalike.v1 import embedding_pb2, embedding_pb2_grpc
from operated import Operated, free_address, operated, scraped
from serving import SlowDevice, request

IMAGE = np.zeros((16, 16, 3), np.uint8)
MOST_CALLS = 20
Stub = embedding_pb2_grpc.EmbeddingServiceStub


@dataclass
class Held:
    """A server whose device answers when it is let go."""

    device: SlowDevice
    server: Operated
    metrics: str

    def metric(self, name: str) -> int:
        found = re.search(rf"^{name} (\S+)$", scraped(self.metrics), re.MULTILINE)
        assert found
        return int(float(found[1]))

    def calls(self) -> int:
        """Those that the engine is answering."""
        return self.metric("lookalike_calls_in_flight")


@contextmanager
def held_server(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Held]:
    device, metrics = SlowDevice(), free_address()
    device.go.release()  # for the first image, before it is ready
    with operated(
        monkeypatch, folder, device, front_ends=2, max_calls=MOST_CALLS, metrics_address=metrics
    ) as server:
        try:
            yield Held(device, server, metrics)
        finally:
            device.open()


@contextmanager
def connections(address: str, count: int) -> Iterator[list[Any]]:
    """Stubs with a connection each, which the kernel shares out."""
    with ExitStack() as stack:
        own = [("grpc.use_local_subchannel_pool", 1)]
        yield [Stub(stack.enter_context(grpc.insecure_channel(address, own))) for _ in range(count)]


def front_ends(parent: int | None = None) -> set[int]:
    """The processes of this one's front-ends, or of another's."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = int(_stat(folder)[1]) == (parent or os.getpid())
            if ours and b"lookalike_server.fronts" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def alive(process_id: int) -> bool:
    """Whether it runs; one that has ended and was not fetched by its parent does not."""
    try:
        return _stat(Path(f"/proc/{process_id}"))[0] != "Z"
    except OSError:
        return False


def _stat(folder: Path) -> list[str]:
    """State, parent, and what else is told after the name (proc(5))."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


def chunks(count: int, *images: Any) -> list[embedding_pb2.EmbedStreamRequest]:
    return [embedding_pb2.EmbedStreamRequest(chunk_id=i, request=request(*images)) for i in range(count)]


def eventually(holds: Callable[[], Any], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.01)


def refusal(call: Callable[[], Any]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value
