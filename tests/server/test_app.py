"""The whole server in this process, with the real default model."""

import asyncio
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from lookalike.v1 import embedding_pb2_grpc, models_pb2, models_pb2_grpc
from lookalike_server.__main__ import main
from lookalike_server.app import SERVICES, EmbeddedServer, Stop, own_settings, run, serve
from lookalike_server.config import RecipeTable, Settings, TapTable
from lookalike_server.engine import Engine
from lookalike_server.errors import ConfigInvalid, DataDirectoryBusy, InternalError, ListenFailed
from photos import encode, photo
from serving import info, reason, request, rich_status, rows

SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    settings = Settings(data=tmp_path_factory.mktemp("data"), max_message_bytes=8 << 20)
    with EmbeddedServer(settings) as embedded:
        yield embedded


@pytest.fixture(scope="module")
def channel(server: EmbeddedServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target) as channel:
        yield channel


@pytest.fixture(scope="module")
def models(channel: grpc.Channel) -> models_pb2_grpc.ModelServiceStub:
    return models_pb2_grpc.ModelServiceStub(channel)


@pytest.fixture(scope="module")
def embedding(channel: grpc.Channel) -> embedding_pb2_grpc.EmbeddingServiceStub:
    return embedding_pb2_grpc.EmbeddingServiceStub(channel)


def bad_images() -> list[bytes]:
    """Every kind of file that is no image, or no longer one."""
    jpeg, png = encode(photo("chelsea")), encode(photo("chelsea"), "PNG")
    bomb = bytearray(png)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    return [
        b"",
        b"x",
        b"<html>not found</html>",
        bytes(1000),
        jpeg[:20],
        jpeg[: len(jpeg) // 2],
        jpeg[:200] + bytes(2000),
        png[:33],
        png[: len(png) // 2],
        bytes(bomb),
        encode(photo("chelsea"), "WEBP")[:100],
        encode(photo("chelsea"), "GIF")[:100],
        encode(photo("chelsea"), "BMP")[:100],
        encode(photo("chelsea"), "TIFF")[:50],
        b"%PDF-1.7\n",
        b"PK\x03\x04" + bytes(100),
        b"\x00\x00\x00\x18ftypheic" + bytes(100),
    ]


def good_images(count: int) -> list[bytes]:
    names = ("astronaut", "chelsea", "coffee", "rocket")
    return [encode(photo(names[i % 4]), "JPEG", quality=50 + i) for i in range(count)]


def test_good_images_are_the_same_to_the_bit_whatever_stands_between_them(
    embedding: embedding_pb2_grpc.EmbeddingServiceStub,
) -> None:
    bad = bad_images()
    good = good_images(43)
    mixed = [bad[i // 3 % len(bad)] if i % 3 == 2 else good[i - (i + 1) // 3] for i in range(64)]
    alone = embedding.Embed(request(*good), timeout=120)
    among = embedding.Embed(request(*mixed), timeout=120)
    np.testing.assert_array_equal(rows(among), rows(alone))
    failed = [i for i, result in enumerate(among.results) if result.status.code]
    assert failed == list(range(2, 64, 3))
    assert all(reason(among.results[i].status).startswith(("IMAGE_", "PIXEL_")) for i in failed)


def test_two_recipes_of_one_call_come_in_the_order_asked(
    embedding: embedding_pb2_grpc.EmbeddingServiceStub,
) -> None:
    response = embedding.Embed(request(encode(photo("coffee")), recipes=["semantic", "near_duplicate"]))
    assert [batch.recipe for batch in response.batches] == ["semantic", "near_duplicate"]
    for index, batch in enumerate(response.batches):
        assert rows(response, index).shape == (1, batch.space.dimension)


def test_a_message_over_the_limit_is_refused(embedding: embedding_pb2_grpc.EmbeddingServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        embedding.Embed(request(bytes(9 << 20)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_health_is_serving_as_a_whole_and_for_each_service(channel: grpc.Channel, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING


def test_reflection_lists_every_service(channel: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = stub.ServerReflectionInfo(asked)
    assert set(SERVICES) <= {service.name for service in answer.list_services_response.service}


def test_the_server_tells_its_limits(models: models_pb2_grpc.ModelServiceStub) -> None:
    answer = models.GetServerInfo(models_pb2.GetServerInfoRequest())
    assert answer.limits.max_message_bytes == 8 << 20
    assert answer.limits.max_k == 1000
    assert answer.device
    assert answer.version


def test_recipes_are_listed_with_the_default_first(models: models_pb2_grpc.ModelServiceStub) -> None:
    recipes = models.ListRecipes(models_pb2.ListRecipesRequest()).recipes
    assert [recipe.name for recipe in recipes] == ["near_duplicate", "semantic"]
    assert recipes[0].input_height > 0
    assert recipes[0].space.dimension > 0
    assert recipes[0].taps[0].node


def test_backbones_in_use_are_listed_first(models: models_pb2_grpc.ModelServiceStub) -> None:
    first, *others = models.ListBackbones(models_pb2.ListBackbonesRequest()).backbones
    assert (first.name, first.weights, first.loaded) == ("efficientnet_lite0", "packaged", True)
    assert "resnet50" in [backbone.name for backbone in others]


def test_nodes_have_shapes_and_costs(models: models_pb2_grpc.ModelServiceStub) -> None:
    nodes = models.ListNodes(models_pb2.ListNodesRequest(backbone="resnet18"), timeout=60).nodes
    by_name = {node.name: node for node in nodes}
    relu = by_name["layer4.1.relu_1"]
    assert (list(relu.shape), relu.stride, relu.dtype) == ([1, 512, 7, 7], 32, "float32")
    assert by_name["conv1"].flops == 2 * 112 * 112 * 64 * 3 * 7 * 7


def test_an_unknown_backbone_is_answered_with_the_nearest(models: models_pb2_grpc.ModelServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        models.ListNodes(models_pb2.ListNodesRequest(backbone="resnet5O"))
    status = rich_status(caught.value)
    assert reason(status) == "BACKBONE_UNKNOWN"
    assert "resnet50" in status.message


def test_nodes_of_no_backbone_are_an_invalid_request(models: models_pb2_grpc.ModelServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        models.ListNodes(models_pb2.ListNodesRequest())
    assert info(rich_status(caught.value)).metadata["field"] == "backbone"


def test_only_this_user_reaches_the_socket(server: EmbeddedServer) -> None:
    folder = Path(server.target.removeprefix("unix:")).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_health_command_tells_by_its_exit_status(server: EmbeddedServer) -> None:
    runner = CliRunner()
    assert runner.invoke(main, ["health", "--address", server.target]).exit_code == 0
    nobody = runner.invoke(main, ["health", "--address", "127.0.0.1:1", "--timeout", "1"])
    assert nobody.exit_code == 1
    assert "127.0.0.1:1: UNAVAILABLE" in nobody.output


def test_a_data_directory_belongs_to_one_server(server: EmbeddedServer, tmp_path: Path) -> None:
    with EmbeddedServer(small(tmp_path)), pytest.raises(DataDirectoryBusy):
        EmbeddedServer(small(tmp_path))


def small(data: Path) -> Settings:
    """Settings that load one recipe, whose batches are small."""
    return Settings(data=data, served_recipes=("semantic",), max_batch=2)


def test_closing_leaves_nothing_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    embedded = EmbeddedServer(small(tmp_path))
    with grpc.insecure_channel(embedded.target) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        stub.Embed(request(*good_images(1)))
        embedded.close()
        with pytest.raises(grpc.RpcError) as caught:
            stub.Embed(request(b"x"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    embedded.close()
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not left & {"lookalike", "device", "decode-0"}
    assert not Path(embedded.target.removeprefix("unix:")).parent.exists()


Visit = Callable[[Any, Engine, Stop], Awaitable[None]]


def visited(folder: Path, visit: Visit) -> None:
    """Runs a server in this thread until the visitor, who sees its engine, has stopped it and gone."""

    async def main() -> None:
        stop, visits = Stop(), []

        async def guarded(address: str, engine: Engine) -> None:
            async with grpc.aio.insecure_channel(address) as channel:
                try:
                    await visit(embedding_pb2_grpc.EmbeddingServiceStub(channel), engine, stop)
                finally:
                    stop()

        def ready(address: str, engine: Engine) -> None:
            visits.append(asyncio.create_task(guarded(address, engine)))

        await run(small(folder).model_copy(update={"address": f"unix:{folder}/s"}), stop, ready)
        await visits[0]

    asyncio.run(main())


async def on_the_road(engine: Engine) -> None:
    while not engine.room.images:
        await asyncio.sleep(0.005)


def test_told_to_stop_it_lets_calls_in_flight_end(tmp_path: Path) -> None:
    async def visit(stub: Any, engine: Engine, stop: Stop) -> None:
        call = stub.Embed(request(*good_images(12)))
        await on_the_road(engine)
        stop()
        assert len(rows(await call)) == 12

    visited(tmp_path, visit)


def test_told_twice_it_stops_at_once(tmp_path: Path) -> None:
    async def visit(stub: Any, engine: Engine, stop: Stop) -> None:
        call = stub.Embed(request(*good_images(40)))
        await on_the_road(engine)
        stop()
        stop()
        with pytest.raises(grpc.RpcError) as caught:
            await call
        assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}

    visited(tmp_path, visit)


def failure(settings: Settings) -> Exception:
    async def start() -> None:
        await run(settings, Stop(), lambda address, engine: None)

    with pytest.raises((ListenFailed, ConfigInvalid)) as caught:
        asyncio.run(start())
    return caught.value


def test_a_port_in_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert serve(Settings(address=address, data=tmp_path)) == 1
    line = f"lookalike: Cannot listen on {address}: Address already in use. Choose another with --address.\n"
    assert capsys.readouterr().err == line


def test_a_socket_of_a_living_server_is_not_taken_away(server: EmbeddedServer, tmp_path: Path) -> None:
    assert "another server listens there" in str(failure(Settings(address=server.target, data=tmp_path)))


def test_a_host_that_does_not_exist_is_told(tmp_path: Path) -> None:
    error = failure(Settings(address="no-such-host.invalid:50051", data=tmp_path))
    assert "Cannot listen on no-such-host.invalid:50051: " in str(error)


def test_an_unknown_recipe_to_serve_is_answered_with_the_nearest(tmp_path: Path) -> None:
    error = failure(Settings(data=tmp_path, address="127.0.0.1:0", served_recipes=("semantics",)))
    assert "Did you mean 'semantic'?" in str(error)


def test_a_gpu_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "cuda:99" in str(failure(Settings(data=tmp_path, address="127.0.0.1:0", device="cuda:99")))


def test_a_recipe_of_the_configuration_is_served_beside_the_built_in_ones(tmp_path: Path) -> None:
    taps = (TapTable(node="blocks.10.expand", pooling="avg"),)
    mine = RecipeTable(backbone="efficientnet_lite0", taps=taps, input_size=(96, 96))
    settings = Settings(data=tmp_path, recipes={"mine": mine}, served_recipes=("semantic", "mine"))
    with EmbeddedServer(settings) as embedded, grpc.insecure_channel(embedded.target) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        response = stub.Embed(request(encode(photo("coffee")), b"bad", recipes=["mine", "semantic"]))
        recipes = (
            models_pb2_grpc.ModelServiceStub(channel).ListRecipes(models_pb2.ListRecipesRequest()).recipes
        )
    assert [rows(response, index).shape[0] for index in range(2)] == [1, 1]
    assert {recipe.name: recipe.input_height for recipe in recipes} == {"semantic": 224, "mine": 96}


def test_a_server_whose_device_is_lost_ends_and_says_so(tmp_path: Path) -> None:
    async def lose_the_device() -> None:
        settings = Settings(address=f"unix:{tmp_path}/s", data=tmp_path, served_recipes=("semantic",))
        await run(settings, Stop(), lambda address, engine: engine.broken.set())

    with pytest.raises(InternalError, match="Start the server again"):
        asyncio.run(lose_the_device())


def test_a_signal_ends_the_process_with_status_zero(tmp_path: Path) -> None:
    flags = ["--address", f"unix:{tmp_path}/s", "--data", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "lookalike_server", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    rest, errors = process.communicate(timeout=60)
    assert f"serves near_duplicate, semantic on unix:{tmp_path}/s" in line
    assert (rest, errors, process.returncode) == ("", "", 0)


@pytest.mark.parametrize(
    ("wish", "images", "runtime"),
    [("auto", 30, "eager"), ("auto", 1200, "auto"), ("eager", 1200, "eager"), ("openvino", 1, "openvino")],
)
def test_an_embedded_server_tries_runtimes_where_many_images_are_to_come(
    wish: str, images: int, runtime: str
) -> None:
    settings = own_settings(Settings(runtime=wish, front_ends=2), images)
    assert (settings.runtime, settings.front_ends, settings.model_process) == (runtime, 0, False)
