"""An engine of its own around a device made by hand, for tests that need no wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from lookalike_server.caller import CALLER, Caller
from lookalike_server.device import Device
from lookalike_server.engine import Engine, Outcome, Source
from serving import SlowDevice, TinyModel, recipes_of


@asynccontextmanager
async def running(*devices: Device, **options: Any) -> AsyncIterator[Engine]:
    devices = devices or (Device([TinyModel()]),)
    engine = Engine(recipes_of(devices[0]), *devices, **options)
    await engine.start()
    try:
        yield engine
    finally:
        for device in devices:
            if isinstance(device, SlowDevice):
                device.open()
        await engine.close()


async def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for what another task or thread is about to do."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come about"
        await asyncio.sleep(0.002)


def as_caller(
    call: Coroutine[Any, Any, list[Outcome]], name: str = "", seconds: float | None = None
) -> asyncio.Task[list[Outcome]]:
    """Runs a call as that of a client, with so many seconds to its deadline."""

    async def run() -> list[Outcome]:
        CALLER.set(Caller(name, time.monotonic() + seconds) if seconds is not None else Caller(name))
        return await call

    return asyncio.create_task(run())


async def one(engine: Engine, image: Source, *, wait: bool = False) -> Outcome:
    (outcome,) = await engine.embed([image], [], wait=wait)
    return outcome
