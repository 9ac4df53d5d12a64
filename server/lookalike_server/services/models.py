"""ModelService: what the server can compute, and within which limits."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import torch
from lookalike.v1 import models_pb2 as pb
from lookalike.v1 import models_pb2_grpc
from lookalike_extractor import NodeInfo, describe_nodes
from lookalike_extractor.backbones import create_architecture, default_preprocessing, list_backbones
from lookalike_extractor.recipe import Recipe

from lookalike_server.config import Settings
from lookalike_server.engine import Engine
from lookalike_server.errors import ArgumentInvalid
from lookalike_server.wire import space_to_wire


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings

    async def GetServerInfo(  # noqa: N802
        self, request: pb.GetServerInfoRequest, context: Any
    ) -> pb.GetServerInfoResponse:
        limits = {field.name: getattr(self._settings, field.name) for field in pb.Limits.DESCRIPTOR.fields}
        return pb.GetServerInfoResponse(
            version=version("lookalike"), device=self._engine.device, limits=pb.Limits(**limits)
        )

    async def ListRecipes(  # noqa: N802
        self, request: pb.ListRecipesRequest, context: Any
    ) -> pb.ListRecipesResponse:
        return pb.ListRecipesResponse(recipes=[self._recipe(r) for r in self._engine.recipes.values()])

    async def ListBackbones(  # noqa: N802
        self, request: pb.ListBackbonesRequest, context: Any
    ) -> pb.ListBackbonesResponse:
        loaded = {recipe.backbone for recipe in self._engine.recipes.values()}
        backbones = [
            pb.Backbone(name=info.name, weights=info.weights, loaded=info.name in loaded)
            for info in await asyncio.to_thread(list_backbones)
        ]
        backbones.sort(key=lambda backbone: (not backbone.loaded, backbone.name))
        return pb.ListBackbonesResponse(backbones=backbones)

    async def ListNodes(  # noqa: N802
        self, request: pb.ListNodesRequest, context: Any
    ) -> pb.ListNodesResponse:
        if not request.backbone:
            raise ArgumentInvalid("backbone is empty; name one that ListBackbones gives.", field="backbone")
        return await asyncio.to_thread(_list_nodes, request.backbone)

    def _recipe(self, recipe: Recipe) -> pb.Recipe:
        preprocessing, health = self._engine.preprocessing(recipe.name), self._engine.health()
        return pb.Recipe(
            name=recipe.name,
            backbone=recipe.backbone,
            taps=[pb.Tap(node=tap.node, pooling=tap.spec) for tap in recipe.taps],
            input_height=preprocessing.height,
            input_width=preprocessing.width,
            space=space_to_wire(self._engine.spaces[recipe.name]),
            duplicate_threshold=recipe.duplicate_threshold,
            runtime=health.runtimes[recipe.name],
            ready=health.models[recipe.name].ready,
        )


@lru_cache(maxsize=32)
def _list_nodes(backbone: str) -> pb.ListNodesResponse:
    """Lists the nodes without weights and without computing: on the meta device tensors have only a shape."""
    size = default_preprocessing(backbone)
    with torch.device("meta"):
        network = create_architecture(backbone)
        image = torch.empty(1, 3, size.height, size.width)
    return pb.ListNodesResponse(nodes=[_node(info) for info in describe_nodes(network, image)])


def _node(info: NodeInfo) -> pb.Node:
    return pb.Node(
        name=info.name,
        operation=info.operation,
        shape=info.shape,
        stride=info.stride,
        dtype=info.dtype,
        parameters=info.parameters,
        flops=info.flops,
        cumulative_flops=info.cumulative_flops,
    )
