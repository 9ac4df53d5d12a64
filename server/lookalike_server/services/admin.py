"""AdminService: for those who run the server, on a socket of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lookalike.v1 import admin_pb2 as pb
from lookalike.v1 import admin_pb2_grpc

from lookalike_server import logs
from lookalike_server.errors import ArgumentInvalid
from lookalike_server.wire import duration

if TYPE_CHECKING:
    from lookalike_server.catalog import Catalog
    from lookalike_server.engine import Engine
    from lookalike_server.interceptors import CallInterceptor
    from lookalike_server.operations import Operations
    from lookalike_server.reloading import Reloading

_LEVELS = {
    pb.LOG_LEVEL_DEBUG: "debug",
    pb.LOG_LEVEL_INFO: "info",
    pb.LOG_LEVEL_WARNING: "warning",
    pb.LOG_LEVEL_ERROR: "error",
}


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Args:
    address: of the other services.
    stop: what a signal would call.
    """

    def __init__(
        self,
        address: str,
        engine: Engine,
        catalog: Catalog,
        calls: CallInterceptor,
        operations: Operations,
        reloading: Reloading,
        stop: Callable[[], None],
    ) -> None:
        self._address = address
        self._engine = engine
        self._catalog = catalog
        self._calls = calls
        self._operations = operations
        self._reloading = reloading
        self._stop = stop
        self._since = time.monotonic()

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:  # noqa: N802
        now, health = self._engine.statistics(), self._engine.health()
        status = pb.GetStatusResponse(
            version=version("lookalike"),
            address=self._address,
            state=pb.SERVER_STATE_SERVING if health.ready else pb.SERVER_STATE_NOT_READY,
            reason=health.reason,
            uptime=duration(time.monotonic() - self._since),
            calls_in_flight=self._calls.calls,
            images=now.images,
            image_bytes=now.bytes,
            collections=len(self._catalog.list()),
            tokens=self._operations.token_names(),
            replicas=[
                pb.Replica(name=name, ready=replica.ready, reason=replica.reason)
                for name, replica in health.replicas.items()
            ],
            reload_fault=self._reloading.fault,
        )
        if self._engine.draining.is_set():
            status.state = pb.SERVER_STATE_DRAINING
        expires = self._operations.certificate_expires()
        if expires is not None:
            status.certificate_expires.FromDatetime(expires)
        return status

    async def Drain(self, request: pb.DrainRequest, context: Any) -> pb.DrainResponse:  # noqa: N802
        self._stop()
        return pb.DrainResponse()

    async def SetLogLevel(  # noqa: N802
        self, request: pb.SetLogLevelRequest, context: Any
    ) -> pb.SetLogLevelResponse:
        if request.level not in _LEVELS:
            raise ArgumentInvalid(f"level is {request.level}; give one of LogLevel.", field="level")
        logs.set_level(_LEVELS[request.level])
        return pb.SetLogLevelResponse()

    async def ReloadFiles(  # noqa: N802
        self, request: pb.ReloadFilesRequest, context: Any
    ) -> pb.ReloadFilesResponse:
        self._operations.reload()
        return pb.ReloadFilesResponse()

    async def ReloadRecipes(  # noqa: N802
        self, request: pb.ReloadRecipesRequest, context: Any
    ) -> pb.ReloadRecipesResponse:
        reloaded = await self._reloading.reload()
        return pb.ReloadRecipesResponse(loaded=reloaded.loaded, kept=reloaded.kept, gone=reloaded.gone)
