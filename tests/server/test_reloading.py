"""Other recipes while the server runs: all of them at once, or none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGHUP, SIGTERM
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lookalike import Client
from lookalike.cli.app import run
from lookalike.errors import LookalikeError
from lookalike.v1 import embedding_pb2_grpc
from lookalike_extractor.images import decode
from lookalike_extractor.recipe import Recipe, Space
from lookalike_server import reloading
from lookalike_server.config import RecipeTable, Settings, TapTable
from lookalike_server.device import Device
from operated import Operated, free_address, operated, scraped
from photos import encode, photo
from serving import TINY, TinyModel, request, rows

PHOTOS = [encode(photo(name).resize((60, 50))) for name in ("chelsea", "coffee", "astronaut")]


def table(**changed: Any) -> RecipeTable:
    return RecipeTable(**{"backbone": "tiny", "taps": (TapTable(node="conv"),)} | changed)


class Made(TinyModel):
    """A tiny model whose space and answers are those of its recipe's threshold of p."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe.name)
        p = recipe.taps[0].p
        self.spaces = {recipe.name: Space(f"space-of-{recipe.name}-{p}", 8, recipe.name)}
        self.convolutions[0].weight.data += p


@dataclass
class Loader:
    """Stands for what loads models. Remembers which it was asked for."""

    asked: list[list[str]] = field(default_factory=list)
    made: list[weakref.ref[Any]] = field(default_factory=list)
    before: Callable[[], None] = lambda: None
    device: type[Device] = Device

    def __call__(self, settings: Settings, recipes: Sequence[Recipe]) -> list[Device]:
        self.asked.append([recipe.name for recipe in recipes])
        self.before()
        models = [Made(recipe) for recipe in recipes]
        self.made += map(weakref.ref, models)
        return [self.device(models)]


@dataclass
class Running:
    server: Operated
    loader: Loader
    admin: str
    metrics: str
    folder: Path
    settings: Settings

    def wish(self, **recipes: RecipeTable) -> None:
        """Writes other recipes into the settings; the first is the default."""
        self.settings = Settings(
            **self.settings.model_dump(exclude={"recipes", "served_recipes"}),
            recipes=recipes,
            served_recipes=tuple(recipes),
        )

    def reload(self) -> int:
        return run(["admin", "reload", "--socket", self.admin])


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Running]:
    loader, admin, metrics = Loader(), f"unix:{tmp_path}/admin", free_address()
    monkeypatch.setattr(reloading, "load_devices", loader)
    monkeypatch.setattr(reloading, "group_recipes", lambda recipes: [[recipe] for recipe in recipes])
    given: dict[str, Any] = {"admin_address": admin, "metrics_address": metrics, "address": "127.0.0.1:0"}
    settings = Settings(**given, data=tmp_path / "data", recipes={"tiny": table()}, served_recipes=("tiny",))
    now: list[Running] = []
    options = {"decode_threads": 2, "cache_bytes": 1 << 20}
    with operated(
        monkeypatch, tmp_path, read=lambda: now[0].settings, options=options, **settings.model_dump()
    ) as server:
        now.append(Running(server, loader, admin, metrics, tmp_path, settings))
        yield now[0]


def embed(running: Running, image: bytes = PHOTOS[0], recipe: str = "") -> tuple[str, np.ndarray]:
    """The space and the descriptor of an image."""
    with running.server.channel() as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        answer = stub.Embed(request(image, recipes=[recipe] if recipe else []), timeout=20)
    return answer.batches[0].space.id, rows(answer)[0]


def health(running: Running, recipe: str) -> str:
    with running.server.channel() as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=recipe))
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def test_a_new_recipe_is_served_beside_one_that_is_kept_and_no_call_fails(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    answers, failures, stop = [], [], threading.Event()

    def call() -> None:
        with Client(running.server.address) as client:
            while not stop.is_set():
                try:
                    answers.append(client.embed(PHOTOS[0], recipe="tiny"))
                except LookalikeError as error:
                    failures.append(error)

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    running.wish(other=table(), tiny=table(duplicate_threshold=0.5))
    assert running.reload() == 0
    assert embed(running)[0] == "space-of-other-3.0"
    stop.set()
    for caller in callers:
        caller.join()
    assert failures == []
    assert all(np.array_equal(answer, answers[0]) for answer in answers)
    assert running.loader.asked == [["other"]]
    with Client(running.server.address) as client:
        served = {recipe.name: recipe.duplicate_threshold for recipe in client.recipes()}
    assert list(served.items()) == [("other", 0.9), ("tiny", 0.5)]
    assert health(running, "other") == "SERVING"
    assert "recipes loaded: other\nrecipes as before: tiny" in capsys.readouterr().err


def test_images_on_the_road_end_in_the_model_they_came_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, let_go = threading.Event(), threading.Event()
    expected = embed(running)

    def holding(data: bytes, *arguments: Any, **options: Any) -> Any:
        if data == PHOTOS[1]:
            held.set()
            let_go.wait(20)
        return decode(data, *arguments, **options)

    monkeypatch.setattr("lookalike_server.decoding.decode", holding)
    with ThreadPoolExecutor() as pool:
        before = pool.submit(embed, running, PHOTOS[1])
        assert held.wait(60)
        running.wish(tiny=table(taps=(TapTable(node="conv", p=2.0),)))
        assert running.reload() == 0
        after = embed(running)
        let_go.set()
        space, descriptor = before.result(20)
    assert space == expected[0] == "space-of-tiny"
    assert after[0] == "space-of-tiny-2.0"
    old = Device([TinyModel()]).run(0, [decode(PHOTOS[1], TINY)])["tiny"][0]
    np.testing.assert_array_equal(descriptor, old)
    assert not np.array_equal(after[1], expected[1])


class Raising(Device):
    def run(self, model: int, pixels: Sequence[Any]) -> dict[str, Any]:
        raise RuntimeError("no kernel for this")


class NotFinite(Device):
    def run(self, model: int, pixels: Sequence[Any]) -> dict[str, Any]:
        return {name: found * np.nan for name, found in super().run(model, pixels).items()}


def no_memory() -> None:
    raise MemoryError("what was asked for")


def spoil_loading(running: Running) -> None:
    running.loader.before = no_memory


def spoil_model(running: Running) -> None:
    running.loader.device = Raising


def spoil_answers(running: Running) -> None:
    running.loader.device = NotFinite


def change_what_cannot(running: Running) -> None:
    running.settings = running.settings.model_copy(update={"max_k": 7})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_loading, "MemoryError: what was asked for"),
        (spoil_model, "RuntimeError: no kernel for this"),
        (spoil_answers, "The model's answer to this image is not finite."),
        (change_what_cannot, "max_k: cannot change while the server runs"),
    ],
)
def test_what_goes_wrong_leaves_all_as_it_was_and_says_why(
    running: Running, spoil: Callable[[Running], None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = embed(running)
    running.wish(other=table(), tiny=table())
    spoil(running)
    assert running.reload() != 0
    assert said in capsys.readouterr().err
    space, descriptor = embed(running, PHOTOS[0])
    assert space == expected[0]
    np.testing.assert_array_equal(descriptor, expected[1])
    with pytest.raises(grpc.RpcError) as caught:
        embed(running, recipe="other")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    told = scraped(running.metrics)
    assert 'lookalike_reloads_total{outcome="failed"} 1.0' in told
    assert "lookalike_reload_failed 1.0" in told
    run(["admin", "status", "--socket", running.admin])
    assert said in capsys.readouterr().out


def test_after_a_fault_is_mended_the_next_reload_is_as_good_as_the_first(running: Running) -> None:
    running.wish(other=table(), tiny=table())
    running.loader.before = no_memory
    assert running.reload() != 0
    running.loader.before = lambda: None
    assert running.reload() == 0
    assert embed(running, recipe="other")[0] == "space-of-other-3.0"
    assert "lookalike_reload_failed 0.0" in scraped(running.metrics)


def test_a_collection_whose_recipe_is_gone_keeps_its_items_and_gets_pictures_again_with_it(
    running: Running,
) -> None:
    with Client(running.server.address) as client:
        shop = client.create_collection("shop", recipe="tiny")
        shop.add(PHOTOS[:2], ids=["a", "b"])
        running.wish(other=table())
        assert running.reload() == 0
        assert health(running, "tiny") == "SERVICE_UNKNOWN"
        with pytest.raises(LookalikeError) as caught:
            client.embed(PHOTOS[0], recipe="tiny")
        assert caught.value.reason == "RECIPE_UNKNOWN"
        with pytest.raises(LookalikeError) as caught:
            shop.search(PHOTOS[0])
        assert caught.value.reason == "SPACE_MISMATCH"
        assert [hit.id for hit in shop.search(id="a")] == ["b"]
        running.wish(tiny=table())
        running.loader.device = OfOldSpace
        assert running.reload() == 0
        assert shop.search(PHOTOS[1])[0].id == "b"
        assert health(running, "tiny") == "SERVING"


class OfOldSpace(Device):
    """Its models are those from before the reload."""

    def __init__(self, models: Sequence[Any]) -> None:
        super().__init__([TinyModel() for _ in models])


def test_a_recipe_whose_file_was_replaced_is_loaded_again(running: Running) -> None:
    weights = running.folder / "weights"
    weights.write_bytes(b"first")
    running.wish(mine=table(weights=weights), tiny=table())
    assert [running.reload(), running.reload()] == [0, 0]
    assert running.loader.asked == [["mine"]]
    weights.write_bytes(b"second")
    assert running.reload() == 0
    assert running.loader.asked == [["mine"], ["mine"]]


def test_a_file_that_changes_while_it_is_read_is_not_taken(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = running.folder / "weights"
    weights.write_bytes(b"first")
    running.loader.before = lambda: weights.write_bytes(b"second") and None
    running.wish(mine=table(weights=weights))
    assert running.reload() != 0
    assert "has changed while it was read" in capsys.readouterr().err
    assert embed(running)[0] == "space-of-tiny"


def test_a_model_that_is_served_no_more_is_freed(running: Running) -> None:
    running.wish(other=table())
    assert running.reload() == 0
    embed(running)
    running.wish(third=table())
    assert running.reload() == 0
    embed(running)
    deadline = time.monotonic() + 60
    while running.loader.made[0]() is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_second_reload_is_refused_while_one_is_under_way(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    began, let_go = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        let_go.wait(20)

    running.loader.before = wait
    running.wish(other=table())
    with ThreadPoolExecutor() as pool:
        first = pool.submit(running.reload)
        assert began.wait(60)
        assert running.reload() != 0
        assert "A reload is under way" in capsys.readouterr().err
        assert embed(running)[0] == "space-of-tiny"
        let_go.set()
        assert first.result(20) == 0


def test_a_hangup_reloads_real_recipes_from_the_file_and_systemd_knows_when_it_is_ready(
    tmp_path: Path,
) -> None:
    config, address = tmp_path / "lookalike.toml", f"unix:{tmp_path}/s"
    lines = f'address = "{address}"\ndata = "{tmp_path}/data"\nserved_recipes = [%s]\n[recipes.mine]\n'
    lines += 'backbone = "efficientnet_lite0"\ninput_size = [96, 96]\ntaps = [{node = "blocks.10"}]\n'
    config.write_text(lines % '"semantic"')
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(tmp_path / "notify"))
    process = subprocess.Popen(
        [sys.executable, "-m", "lookalike_server", "--config", str(config)],
        env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "serves semantic on" in process.stdout.readline()
        with notified:
            notified.settimeout(10)
            assert notified.recv(64) == b"READY=1"
        with Client(address) as client:
            before = client.embed(PHOTOS[0])
            config.write_text(lines % '"mine", "semantic"')
            process.send_signal(SIGHUP)
            deadline = time.monotonic() + 60
            while [recipe.name for recipe in client.recipes()] != ["mine", "semantic"]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            np.testing.assert_array_equal(client.embed(PHOTOS[0], recipe="semantic"), before)
            assert len(client.embed(PHOTOS[0])) != len(before)
    finally:
        process.send_signal(SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
