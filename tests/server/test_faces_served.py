"""The recipe `face` in a whole server: pictures without a face are told, each alone, and never embedded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from lookalike.v1 import (
    collections_pb2,
    collections_pb2_grpc,
    embedding_pb2_grpc,
    items_pb2,
    items_pb2_grpc,
    search_pb2,
    search_pb2_grpc,
)
from lookalike_server.app import EmbeddedServer
from lookalike_server.assembly import served_recipes
from lookalike_server.config import Settings
from lookalike_server.errors import ConfigInvalid
from lookalike_server.loading import load_settings
from made_faces import BLACK, WHITE, weights
from serving import image_of, reason, request, rich_status, rows


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    folder = tmp_path_factory.mktemp("faces")
    # A server is up only once its canaries, which have no face, came through.
    settings = Settings(
        data=folder / "data", face_weights=weights(folder), served_recipes=("face",), runtime="eager"
    )
    with EmbeddedServer(settings) as server, grpc.insecure_channel(server.target) as channel:
        yield channel


def test_a_picture_without_a_face_leaves_its_neighbours_alone(channel: grpc.Channel) -> None:
    response = embedding_pb2_grpc.EmbeddingServiceStub(channel).Embed(request(WHITE, BLACK, WHITE))
    assert [reason(result.status) if result.status.code else "" for result in response.results] == [
        "",
        "NO_FACE",
        "",
    ]
    assert rows(response).shape == (2, 129)
    assert np.array_equal(*rows(response))


def test_what_has_no_face_is_neither_stored_nor_looked_for(channel: grpc.Channel) -> None:
    collections_pb2_grpc.CollectionServiceStub(channel).CreateCollection(
        collections_pb2.CreateCollectionRequest(name="people")
    )
    images = {"bright": image_of(WHITE), "dark": image_of(BLACK)}
    upsert = items_pb2_grpc.ItemServiceStub(channel).UpsertItems
    items = [items_pb2.NewItem(id=name, image=image) for name, image in images.items()]
    assert upsert(items_pb2.UpsertItemsRequest(collection="people", items=items[:1])).inserted == 1
    with pytest.raises(grpc.RpcError) as refused:
        upsert(items_pb2.UpsertItemsRequest(collection="people", items=items[1:]))
    assert reason(rich_status(refused.value)) == "NO_FACE"
    search = search_pb2_grpc.SearchServiceStub(channel).Search
    for views in (search_pb2.VIEWS_UNSPECIFIED, search_pb2.VIEWS_GRID):
        queries = [search_pb2.Query(image=image) for image in images.values()]
        found = search(search_pb2.SearchRequest(collection="people", queries=queries, k=5, views=views))
        assert [hit.id for hit in found.results[0].hits] == ["bright"]
        assert reason(found.results[1].status) == "NO_FACE"


def test_the_recipe_is_there_once_its_weights_are_named(tmp_path: Path) -> None:
    assert "face" not in served_recipes(Settings())
    recipe = served_recipes(Settings(face_weights=tmp_path / "faces.safetensors"))["face"]
    assert recipe.weights == str(tmp_path / "faces.safetensors")
    with pytest.raises(ConfigInvalid, match="face_weights"):
        served_recipes(Settings(served_recipes=("face",)))


def test_a_recipe_for_faces_can_be_written_by_hand(tmp_path: Path) -> None:
    toml = tmp_path / "lookalike.toml"
    toml.write_text(
        "[recipes.staff]\nbackbone = 'face_resnet'\nweights = 'f.safetensors'\nl2_radius = 4.0\n"
        "taps = [{node = 'head', pooling = 'avg'}]\nduplicate_threshold = 0.99\n"
    )
    staff = served_recipes(load_settings(config=toml, environ={}))["staff"]
    assert (staff.l2_radius, staff.weights) == (4.0, str(tmp_path / "f.safetensors"))
