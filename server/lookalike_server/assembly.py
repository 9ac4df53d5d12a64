"""The parts of a server, made from its settings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from lookalike.v1 import calibration_pb2_grpc as calibration_grpc
from lookalike.v1 import collections_pb2_grpc as collections_grpc
from lookalike.v1 import duplicates_pb2_grpc as duplicates_grpc
from lookalike.v1 import embedding_pb2_grpc as embedding_grpc
from lookalike.v1 import items_pb2_grpc as items_grpc
from lookalike.v1 import models_pb2_grpc as models_grpc
from lookalike.v1 import search_pb2_grpc as search_grpc
from lookalike_extractor.errors import did_you_mean
from lookalike_extractor.images import ImageLimits
from lookalike_extractor.recipe import RECIPES, Recipe, Tap, face_recipe

from lookalike_server.catalog import Catalog
from lookalike_server.config import RecipeTable, Settings
from lookalike_server.devices import load_devices, share_of_threads
from lookalike_server.engine import Engine
from lookalike_server.errors import ConfigInvalid
from lookalike_server.gpu_decoding import gpu_decoder
from lookalike_server.readiness import Health as EngineHealth
from lookalike_server.services.calibration import CalibrationServicer
from lookalike_server.services.collections import CollectionServicer
from lookalike_server.services.duplicates import DuplicateServicer
from lookalike_server.services.embedding import EmbeddingServicer
from lookalike_server.services.items import ItemServicer
from lookalike_server.services.models import ModelServicer
from lookalike_server.services.search import SearchServicer

PACKAGE = "lookalike.v1"
SERVICES = tuple(
    f"{PACKAGE}.{name}Service"
    for name in ("Calibration", "Collection", "Duplicate", "Embedding", "Item", "Model", "Search")
)


def served_recipes(settings: Settings) -> dict[str, Recipe]:
    """Returns the recipes to compute, the default one first. Raises ConfigInvalid."""
    known = dict(RECIPES)
    if settings.face_weights is not None:
        known["face"] = face_recipe(str(settings.face_weights))
    known |= {name: _recipe(name, table) for name, table in settings.recipes.items()}
    for name in settings.served_recipes:
        if name == "face" and name not in known:
            raise ConfigInvalid(
                "served_recipes: 'face' needs face_weights, the file that `lookalike faces fetch` writes."
            )
        if name not in known:
            raise ConfigInvalid(f"served_recipes: there is no recipe {name!r}.{did_you_mean(name, known)}")
    return {name: known[name] for name in settings.served_recipes or known}


def _recipe(name: str, table: RecipeTable) -> Recipe:
    return Recipe(
        name=name,
        backbone=table.backbone,
        taps=tuple(Tap(tap.node, tap.pooling, tap.p) for tap in table.taps),
        weights=None if table.weights is None else str(table.weights),
        input_size=table.input_size,
        resize=table.resize,
        duplicate_threshold=table.duplicate_threshold,
        whitening=table.whitening,
        l2_radius=table.l2_radius,
    )


def make_engine(settings: Settings, recipes: Mapping[str, Recipe]) -> Engine:
    """Loads the models. Raises what they raise, and ConfigInvalid when a device or a decoder is not there."""
    decoder = gpu_decoder(settings.device) if settings.gpu_decode else None
    return Engine(
        recipes,
        *load_devices(settings, list(recipes.values())),
        limits=ImageLimits(settings.max_image_bytes, settings.max_image_pixels),
        most_images=settings.queue_images,
        most_bytes=settings.queue_bytes,
        max_batch=settings.max_batch,
        decode_threads=settings.decode_threads or share_of_threads(settings).decode,
        cache_bytes=settings.cache_bytes,
        max_call_seconds=settings.max_call_seconds,
        canary_seconds=settings.canary_seconds,
        stall_seconds=settings.stall_seconds,
        gpu_decoder=decoder,
    )


class Health:
    """The standard health service: of the server as a whole (""), each service, and each recipe by name.

    The server, EmbeddingService and the recipes serve while their canaries come back; collections that are
    there can be read whatever becomes of the device.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        self._serving, self._ready = False, dict.fromkeys(("", *SERVICES), True)
        self._recipes: set[str] = set()
        self._gone: set[str] = set()
        self._publishing: asyncio.Task[None] | None = None

    def also(self, server: grpc.aio.Server) -> None:
        """Tells the same on another server, which is not started yet."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def set(self, serving: bool) -> None:
        """Whether the server takes calls at all."""
        self._serving = serving
        await self._publish()

    def follow(self, engine: Engine) -> None:
        """Tells from now on what the engine says of itself. Call it in the engine's loop."""
        engine.readiness.listeners.append(self._changed)
        self._changed(engine.health())

    def _changed(self, now: EngineHealth) -> None:
        self._ready |= {"": now.ready, f"{PACKAGE}.EmbeddingService": now.ready}
        self._gone |= self._recipes - set(now.models)
        self._recipes = set(now.models)
        self._gone -= self._recipes
        for name in self._gone:
            self._ready.pop(name, None)
        self._ready |= {name: model.ready for name, model in now.models.items()}
        self._publishing = asyncio.create_task(self._publish())

    async def _publish(self) -> None:
        statuses = health_pb2.HealthCheckResponse
        for recipe in tuple(self._gone):
            await self._servicer.set(recipe, statuses.SERVICE_UNKNOWN)
        for service, ready in tuple(self._ready.items()):
            serving = self._serving and ready
            await self._servicer.set(service, statuses.SERVING if serving else statuses.NOT_SERVING)


def add_services(
    server: grpc.aio.Server, settings: Settings, engine: Engine, catalog: Catalog
) -> DuplicateServicer:
    """Adds every service, and reflection. Returns the one whose jobs must be ended."""
    duplicates = DuplicateServicer(catalog, engine)
    embedding_grpc.add_EmbeddingServiceServicer_to_server(EmbeddingServicer(engine, settings), server)
    models_grpc.add_ModelServiceServicer_to_server(ModelServicer(engine, settings), server)
    collections_grpc.add_CollectionServiceServicer_to_server(CollectionServicer(catalog, engine), server)
    items_grpc.add_ItemServiceServicer_to_server(ItemServicer(catalog, engine, settings), server)
    search_grpc.add_SearchServiceServicer_to_server(SearchServicer(catalog, engine, settings), server)
    duplicates_grpc.add_DuplicateServiceServicer_to_server(duplicates, server)
    calibration_grpc.add_CalibrationServiceServicer_to_server(CalibrationServicer(catalog), server)
    names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return duplicates
