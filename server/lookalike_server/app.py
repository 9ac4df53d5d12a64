"""The life of a server.

starting     address and data directory are taken, models loaded, a first image goes the whole road
serving      health says SERVING
draining     health says NOT_SERVING, new calls are refused, those in flight may end
"""

from __future__ import annotations

import asyncio
import atexit
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Self

import grpc
from lookalike_extractor.errors import LookalikeError

from lookalike_server import logs
from lookalike_server.assembly import SERVICES, Health, add_services, make_engine, served_recipes
from lookalike_server.catalog import Catalog
from lookalike_server.config import Settings
from lookalike_server.device import set_threads, tune_allocator
from lookalike_server.devices import share_of_threads
from lookalike_server.engine import Engine
from lookalike_server.errors import ConfigInvalid, InternalError
from lookalike_server.fronts.server import FrontEnds
from lookalike_server.interceptors import CallInterceptor
from lookalike_server.operations import Operations
from lookalike_server.own_process import STARTED
from lookalike_server.reloading import Reloading, sources
from lookalike_server.services.duplicates import DuplicateServicer
from lookalike_server.signals import Again, Stop, heed_signals, tell_manager
from lookalike_server.supervised import forever

__all__ = ["SERVICES", "Again", "EmbeddedServer", "Stop", "run", "serve"]

# What a server that only its own program can reach leaves out, whatever the environment says.
_LEFT_OUT = ("tls_certificate", "tls_key", "tls_client_ca", "token_file", "metrics_address", "admin_address")
_PRIVATE: dict[str, object] = {**dict.fromkeys(_LEFT_OUT), "front_ends": 0, "model_process": False}

# What a trial and a conversion to OpenVINO take is made up for by some 400 images (EfficientNet-Lite0 on
# two cores); of a folder so large, many may be known already.
_IMAGES_FOR_TRIAL = 1000

# What a call may need to send its last message once nothing else is left to do.
_PARTING_SECONDS = 0.5


async def run(
    settings: Settings, stop: Stop, ready: Callable[[str, Engine], None], again: Again | None = None
) -> None:
    """Runs a server until it is told to stop.

    Args:
        ready: called with the address and the engine once calls are answered.
        again: None reads nothing but files again, and only when the admin socket asks.

    Raises ConfigInvalid, ListenFailed, DataDirectoryBusy and what the models raise, before it is ready;
    InternalError when the device is lost, or every front-end.
    """
    recipes = served_recipes(settings)
    made_of, again = sources(recipes), again or Again(lambda: settings, asyncio.Event())
    operations = Operations(settings)
    calls = operations.calls
    async with AsyncExitStack() as stack:
        server, address = operations.listen()
        lost = server.lost if isinstance(server, FrontEnds) else asyncio.Event()
        stack.push_async_callback(server.stop, None)
        catalog = Catalog(settings.data)
        stack.callback(catalog.close)
        engine = make_engine(settings, recipes)
        reloading = Reloading(settings, again.read, engine, made_of)
        await operations.serve_metrics(engine, catalog, reloading, stack)
        await engine.start()
        stack.push_async_callback(engine.close)
        rooms = _Rooms(server, calls, engine, Health(server), add_services(server, settings, engine, catalog))
        await rooms.health.set(serving=False)
        await operations.serve_admin(address, engine, catalog, rooms.health, reloading, stop, stack)
        await server.start()
        stack.push_async_callback(rooms.drain, stop, settings.drain_seconds)
        await engine.try_out()
        rooms.health.follow(engine)
        await rooms.health.set(serving=True)
        reloads = asyncio.create_task(forever(partial(reloading.follow, again.asked, operations.reload)))
        stack.callback(reloads.cancel)
        ready(address, engine)
        await _first(stop.asked, engine.broken, lost)
    if engine.broken.is_set():
        raise InternalError(
            "The device answers nothing any more; the log tells more. Start the server again."
        )
    if lost.is_set():
        raise InternalError("No front-end can be started; the log tells more. Start the server again.")


async def _first(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


@dataclass(frozen=True)
class _Rooms:
    server: grpc.aio.Server
    calls: CallInterceptor
    engine: Engine
    health: Health
    duplicates: DuplicateServicer

    async def drain(self, stop: Stop, seconds: float) -> None:
        """Ends calls gently. Whoever watches the health service stays till the end, and is not waited for."""
        await self.health.set(serving=False)
        self.engine.draining.set()
        stopping = asyncio.create_task(self.server.stop(seconds))
        await asyncio.to_thread(self.duplicates.close)
        idle = asyncio.create_task(self.calls.wait_idle())
        hurried = asyncio.create_task(stop.hurried.wait())
        await asyncio.wait({stopping, idle, hurried}, return_when=asyncio.FIRST_COMPLETED)
        await self.server.stop(None if hurried.done() else _PARTING_SECONDS)
        idle.cancel()
        hurried.cancel()
        await asyncio.gather(stopping, idle, hurried, return_exceptions=True)


def serve(settings: Settings, read: Callable[[], Settings] | None = None) -> int:
    """Serves until SIGTERM or SIGINT, then drains; a second signal stops at once. SIGHUP reloads.

    Blocks the main thread. Returns the exit status: 0, or 1 for a failure and 2 for a wrong setting, after a
    line on standard error that says why.

    Args:
        read: reads the settings again, for SIGHUP and the admin socket; raises ConfigInvalid. None: these
            settings, with the files behind them.
    """
    logs.configure(settings.log_format, settings.log_level)
    try:
        set_threads(settings.torch_threads or share_of_threads(settings).torch)
        tune_allocator()
        asyncio.run(_serve(settings, read or (lambda: settings)))
    except LookalikeError as error:
        print(f"lookalike: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigInvalid) else 1
    return 0


async def _serve(settings: Settings, read: Callable[[], Settings]) -> None:
    stop, again = Stop(), Again(read, asyncio.Event())
    heed_signals(stop, again)

    def ready(address: str, engine: Engine) -> None:
        decoding = f", JPEGs decoded on {engine.decodes_on}" if engine.decodes_on else ""
        runtimes = ", ".join(dict.fromkeys(model.runtime for model in engine.served.models))
        print(
            f"lookalike {version('lookalike')} serves {', '.join(engine.recipes)} on {address} "
            f"({engine.device}: {runtimes}{decoding}), data in {settings.data}; "
            f"ready after {time.monotonic() - STARTED:.1f} s",
            flush=True,
        )
        tell_manager("READY=1")

    await run(settings, stop, ready, again)


def own_settings(settings: Settings, images: int) -> Settings:
    """Those of an embedded server for about so many images."""
    few = {"runtime": "eager"} if settings.runtime == "auto" and images < _IMAGES_FOR_TRIAL else {}
    return settings.model_copy(update=_PRIVATE | few)


class EmbeddedServer:
    """The same server inside this process, on a Unix socket that only this user can reach.

    It has a thread and an event loop of its own. Close it, or use it as a context manager; at the latest it
    closes when the process ends.

    Args:
        settings: their address is not used.
        images: how many are to come, about. For a thousand and more a trial of runtimes pays, which takes
            seconds; with fewer, `runtime = "auto"` is "eager".

    Attributes:
        target: what a client connects to, as "unix:/tmp/...".

    Raises ConfigInvalid, DataDirectoryBusy and what the models raise.
    """

    def __init__(self, settings: Settings, images: int = 0) -> None:
        if settings.torch_threads:
            set_threads(settings.torch_threads)
        settings = own_settings(settings, images)
        tune_allocator()
        self._folder = tempfile.TemporaryDirectory(prefix="lookalike-", ignore_cleanup_errors=True)
        self.target = f"unix:{self._folder.name}/socket"
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(settings,), name="lookalike-server", daemon=True
        )
        try:
            self._thread.start()
            atexit.register(self.close)
            self._ready.result()
        except KeyboardInterrupt:  # it ends once it has started, which takes seconds
            self.stop()
            self._folder.cleanup()
            raise
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Tells it to drain and does not wait; told again, it stops at once."""
        with suppress(RuntimeError, AttributeError):  # its loop has ended, or not begun
            self._loop.call_soon_threadsafe(self._stop)

    def close(self) -> None:
        """Lets what is in flight end, then ends the server. Closing it again does nothing."""
        atexit.unregister(self.close)
        if self._thread.is_alive():
            self.stop()
        self._folder.cleanup()  # now, because who waits may lose patience
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, settings: Settings) -> None:
        try:
            asyncio.run(self._serve(settings.model_copy(update={"address": self.target})))
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)

    async def _serve(self, settings: Settings) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), Stop()
        await run(settings, self._stop, lambda address, engine: self._ready.set_result(None))
