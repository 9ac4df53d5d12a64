"""What stands around the services for those who run them: TLS, tokens, logs, metrics, traces, admin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from lookalike.v1 import admin_pb2_grpc

from lookalike_server import gauges
from lookalike_server.assembly import Health
from lookalike_server.calls import CallObserver
from lookalike_server.config import Settings
from lookalike_server.errors import ConfigInvalid
from lookalike_server.fronts.server import FrontEnds
from lookalike_server.interceptors import CallInterceptor
from lookalike_server.listening import listen
from lookalike_server.logs import CallLog
from lookalike_server.metrics import Metrics
from lookalike_server.services.admin import AdminServicer
from lookalike_server.tls import Certificates
from lookalike_server.tokens import Gate
from lookalike_server.traces import Tracer

if TYPE_CHECKING:
    from lookalike_server.catalog import Catalog
    from lookalike_server.engine import Engine
    from lookalike_server.reloading import Reloading


class Operations:
    """Made of the settings before anything else is started. Raises ConfigInvalid.

    Attributes:
        calls: stands around every call.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._certificates = Certificates.of(settings)
        self._shown = self._certificates.watched() if self._certificates else None
        self._gate = Gate(settings.token_file) if settings.token_file else None
        self._metrics = Metrics() if settings.metrics_address else None
        self.calls = CallInterceptor(self._gate, self._observers())

    def _observers(self) -> list[CallObserver]:
        observers: list[CallObserver] = [CallLog()]
        if self._metrics:
            observers.append(self._metrics)
        if self._settings.traces:
            observers.append(_tracer())
        return observers

    def listen(self) -> tuple[grpc.aio.Server, str]:
        """Takes the address: here, or in front-ends once it is started.

        Returns the server, not started, and its address with the port that was taken. Raises ListenFailed.
        """
        settings = self._settings
        fronts = FrontEnds(settings, self.calls) if settings.front_ends else None
        if self._metrics:
            self._metrics.watch(lambda: gauges.of_front_ends(fronts))
        if fronts:
            return fronts, fronts.address
        return listen(
            settings.address,
            [self.calls],
            settings.max_message_bytes,
            self._tls(),
            settings.max_connections,
            settings.max_calls,
        )

    def _tls(self) -> grpc.ServerCredentials | None:
        if self._certificates is None or self._shown is None:
            return None
        return self._certificates.credentials(self._shown)

    def token_names(self) -> list[str]:
        return [token.name for token in self._gate.tokens.get()] if self._gate else []

    def certificate_expires(self) -> datetime | None:
        return self._shown.get().expires if self._shown else None

    def reload(self) -> None:
        """Reads certificate and tokens now. Raises ConfigInvalid; what was wrong stays as it was."""
        for watched in (self._shown, self._gate and self._gate.tokens):
            if watched:
                watched.reload()

    async def serve_metrics(
        self, engine: Engine, catalog: Catalog, reloading: Reloading, stack: AsyncExitStack
    ) -> None:
        """Serves the metrics until the stack ends, where they are asked for. Raises ListenFailed."""
        if self._metrics is None or self._settings.metrics_address is None:
            return
        engine.tally.observers.append(self._metrics)
        self._metrics.watch(lambda: gauges.of_engine(engine))
        self._metrics.watch(lambda: gauges.of_reloads(reloading))
        self._metrics.watch(lambda: gauges.of_collections(catalog))
        self._metrics.watch(lambda: gauges.of_certificate(self.certificate_expires()))
        close = self._metrics.serve(self._settings.metrics_address)
        stack.push_async_callback(asyncio.to_thread, close)

    async def serve_admin(
        self,
        address: str,
        engine: Engine,
        catalog: Catalog,
        health: Health,
        reloading: Reloading,
        stop: Callable[[], None],
        stack: AsyncExitStack,
    ) -> None:
        """Serves the admin socket until the stack ends, where it is asked for. Raises ListenFailed.

        Args:
            address: of the other services.
            health: of the server, which the socket tells as well.
            stop: what a signal would call.
        """
        socket = self._settings.admin_address
        if socket is None:
            return
        admin, _ = listen(socket, [CallInterceptor()], self._settings.max_message_bytes)
        stack.push_async_callback(admin.stop, None)
        servicer = AdminServicer(address, engine, catalog, self.calls, self, reloading, stop)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(servicer, admin)
        health.also(admin)
        await admin.start()
        Path(socket.removeprefix("unix:")).chmod(0o600)


def _tracer() -> Tracer:
    try:
        return Tracer()
    except ModuleNotFoundError:
        raise ConfigInvalid(
            "traces: OpenTelemetry is not installed: pip install 'lookalike[server,traces]'"
        ) from None
