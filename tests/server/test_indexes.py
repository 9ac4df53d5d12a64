"""Approximate indexes: what they find is scored exactly, nothing deleted comes back, k hits when k fit."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lookalike_server.view
import numpy as np
import pytest
from lookalike import Client
from lookalike.cli.app import run
from lookalike.errors import InvalidArgument
from lookalike.v1 import search_pb2 as pb
from lookalike_extractor.recipe import Space
from lookalike_server import building, indexer, tuning
from lookalike_server.answers import Ask
from lookalike_server.approximate import Approximate, bare
from lookalike_server.building import IndexSettings
from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.errors import ArgumentInvalid
from lookalike_server.parts import Part
from lookalike_server.rows import NewRow
from lookalike_server.segments import next_run
from lookalike_server.status import estimate
from made_rows import row
from over_wire import Wire, run_over_wire

SPACE = Space(id="indexes", dimension=16, recipe="indexes")
COUNT = 2500
LISTS = "PCAR16,IVF64,PQ16x4fsr,Refine(SQfp16)"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookalike_server.view, "PART_ROWS", 256)
    monkeypatch.setattr(building, "EXACT_BELOW", 500)
    monkeypatch.setattr(indexer, "LEAST_ROWS", 500)


def vectors_of(count: int, seed: int = 0) -> np.ndarray:
    """Clusters, and every tenth a copy of another."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, 16))
    vectors = centres[random.integers(0, 40, count)] + 0.3 * random.standard_normal((count, 16))
    vectors[::10] = vectors[5 % count]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def fill(shop: Collection, count: int = COUNT, seed: int = 0, prefix: str = "", at_once: int = 500) -> None:
    rows = [
        NewRow(f"{prefix}{i}", vector, json.dumps({"n": i}))
        for i, vector in enumerate(vectors_of(count, seed))
    ]
    for start in range(0, count, at_once):
        shop.upsert(rows[start : start + at_once])


def waited(shop: Collection, until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until() or next_run(shop._view):
        assert time.monotonic() < end, shop.index_status()
        time.sleep(0.02)


def covered(shop: Collection, least: int) -> Callable[[], bool]:
    return lambda: shop.index_status().indexed >= least and not shop.index_status().building


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Collection]:
    with Catalog(tmp_path) as catalog:
        collection = catalog.create("shop", SPACE)
        fill(collection)
        waited(collection, covered(collection, COUNT - 512))
        yield collection


def recall(shop: Collection, where: str = "", k: int = 10) -> float:
    """The share of the exact hits' scores that searches reach."""
    queries = vectors_of(50, seed=9)[1::2]
    found = shop.ask(queries, Ask(k, where))
    exact = shop.ask(queries, Ask(k, where, exact=True))
    assert [len(hits) for hits in found.hits] == [len(hits) for hits in exact.hits]
    reached = [
        sum(hit.score >= best[-1].score for hit in hits) / len(best) if best else 1.0
        for hits, best in zip(found.hits, exact.hits, strict=True)
    ]
    return float(np.mean(reached))


def test_a_large_collection_gets_an_index_that_says_how_good_it_is(shop: Collection) -> None:
    status = shop.index_status()
    assert status.factory == LISTS
    assert status.recall >= 0.97
    assert status.memory > status.indexed * 2 * 16
    assert status.disk > COUNT * 4 * 16
    result = shop.ask(vectors_of(1), Ask(5))
    assert f"{LISTS} at" in result.account.plan
    assert result.account.compared < COUNT / 2
    assert "exact" in shop.ask(vectors_of(1), Ask(5, exact=True)).account.plan
    assert recall(shop) >= 0.97


@pytest.mark.parametrize("where", ["n >= 0", "n < 1500", "n < 300", "n < 30", "n < 3", "n < 0"])
def test_filtered_searches_find_what_exact_ones_find_and_as_many(shop: Collection, where: str) -> None:
    assert recall(shop, where) >= 0.97


@pytest.mark.parametrize(
    "kind", ["IVF16,SQ8", "IVF16,PQ8x4fs", "HNSW8,SQ8", "SQ8", "Flat", "PCAR8,HNSW8,SQ8,RFlat"]
)
def test_any_factory_string_that_can_be_searched_may_be_chosen(shop: Collection, kind: str) -> None:
    shop.configure_index(IndexSettings(kind=kind, target_recall=0.9))
    waited(shop, lambda: shop.index_status().factory == kind and not shop.index_status().building)
    status = shop.index_status()
    assert abs(recall(shop) - status.recall) < 0.1
    assert recall(shop, "n < 2000") >= status.recall - 0.1


def test_what_is_deleted_or_replaced_after_the_build_is_not_found_and_what_is_new_is(
    shop: Collection,
) -> None:
    target = vectors_of(COUNT)[7]
    assert shop.ask(target[None], Ask(1)).hits[0][0].id == "7"
    shop.delete(["7"])
    shop.upsert([NewRow("8", target, '{"n": 8}')])
    hits = shop.ask(target[None], Ask(5)).hits[0]
    assert hits[0].id == "8"
    assert hits[0].score == pytest.approx(1)
    assert "7" not in [hit.id for hit in hits]
    copies = shop.ask(vectors_of(COUNT)[5][None], Ask(400)).hits[0]
    assert sum(hit.score > 0.9999 for hit in copies) == COUNT // 10 + 1


def test_recall_stays_when_half_of_the_items_are_replaced_and_the_index_is_made_anew(
    shop: Collection,
) -> None:
    fill(shop, COUNT // 2, seed=4)
    assert recall(shop) >= 0.97
    waited(shop, lambda: len(shop._view.beside) <= 4 and not shop.index_status().building)
    assert recall(shop) >= 0.97
    assert shop.verify().problems == ()


def test_an_index_takes_in_the_rows_behind_it_without_being_built_anew(
    shop: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    bases: list[Approximate | None] = []

    def build(parts: Sequence[Part], *rest: Any) -> Approximate:
        bases.append(rest[-1])
        return building.build(parts, *rest)

    monkeypatch.setattr(indexer, "build", build)
    (first,) = shop._view.indexes
    fill(shop, 1000, seed=5, prefix="more-")
    waited(shop, lambda: shop.index_status().indexed == COUNT + 1000 and not shop.index_status().building)
    assert first in bases
    assert shop._view.indexes[0].first == 1
    assert first.index.ntotal < shop._view.indexes[0].index.ntotal
    assert recall(shop) >= 0.97
    assert shop.ask(vectors_of(1000, seed=5)[7][None], Ask(1)).hits[0][0].id == "more-7"


def test_an_index_that_grew_is_made_anew_when_its_items_need_more_lists(shop: Collection) -> None:
    fill(shop, 2000, seed=5, prefix="more-", at_once=2000)
    waited(shop, covered(shop, COUNT + 2000))
    assert shop.index_status().factory == LISTS.replace("IVF64", "IVF128")
    assert recall(shop) >= 0.97


def test_items_that_are_all_alike_get_an_index_too(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        collection = catalog.create("shop", SPACE)
        collection.upsert([NewRow(str(i), vectors_of(1)[0]) for i in range(600)])
        waited(collection, covered(collection, 600))
        assert collection.index_status().recall == 1
        assert len(collection.ask(vectors_of(1), Ask(600)).hits[0]) == 600


def test_a_common_direction_of_all_items_takes_nothing_from_the_recall(tmp_path: Path) -> None:
    shifted = vectors_of(COUNT) + 2 * np.eye(16, dtype=np.float32)[0]
    with Catalog(tmp_path) as catalog:
        collection = catalog.create("shop", SPACE)
        collection.upsert([NewRow(str(i), vector) for i, vector in enumerate(shifted)])
        waited(collection, covered(collection, COUNT - 512))
        assert collection.index_status().recall >= 0.97
        assert "PCAR16" in collection.index_status().factory


def test_a_graph_that_an_older_version_made_is_searched_until_there_are_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as old, Catalog(tmp_path) as catalog:
        old.setattr(IndexSettings, "factory", lambda *_, **__: "HNSW16,SQfp16")
        collection = catalog.create("shop", SPACE)
        fill(collection)
        waited(collection, covered(collection, COUNT - 512))
    go_on = threading.Event()

    def build(*rest: Any) -> Approximate:
        assert go_on.wait(60)
        return building.build(*rest)

    monkeypatch.setattr(indexer, "build", build)
    with Catalog(tmp_path) as catalog:
        collection = catalog.get("shop")
        waited(collection, lambda: collection.index_status().factory == "HNSW16,SQfp16")
        assert recall(collection) >= 0.97
        go_on.set()
        waited(collection, lambda: collection.index_status().factory == LISTS)
        assert recall(collection) >= 0.97


def test_a_build_that_is_no_longer_wanted_ends(shop: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    began = threading.Event()

    def build(*rest: Any) -> Approximate:
        began.set()
        while not rest[3]():
            time.sleep(0.01)
        raise building.Stopped

    monkeypatch.setattr(indexer, "build", build)
    shop.configure_index(IndexSettings(kind="HNSW8,SQ8"))
    assert began.wait(30)
    shop.configure_index(IndexSettings(kind="exact"))
    waited(shop, lambda: shop.index_status().indexed == 0 and not shop.index_status().building)


def test_what_lies_between_and_behind_indexes_is_scanned() -> None:
    keys = np.array([2, 3, 5, 8, 9, 12, 20], np.int64)
    part = Part(keys, np.eye(7, dtype=np.float32), 7, np.ones(7, np.bool_))

    def over(*covered: int) -> Any:
        return SimpleNamespace(first=covered[0], last=covered[-1])

    def left(*indexes: Any) -> list[list[int]]:
        return [one.keys[: one.count].tolist() for one in bare([part], indexes)]

    assert left() == [keys.tolist()]
    assert left(over(1, 30)) == []
    assert left(over(2, 9)) == [[12, 20]]
    assert left(over(8, 9), over(3)) == [[2], [5], [12, 20]]
    assert left(over(30, 40), over(12, 20)) == [[2, 3, 5, 8, 9]]


def test_an_index_comes_back_from_its_file_and_a_damaged_one_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Catalog(tmp_path) as catalog:
        collection = catalog.create("shop", SPACE)
        fill(collection)
        waited(collection, covered(collection, COUNT - 512))
    built: list[str] = []

    def build(parts: Sequence[Part], factory: str, *rest: Any) -> Approximate:
        built.append(factory)
        return building.build(parts, factory, *rest)

    monkeypatch.setattr(indexer, "build", build)
    with Catalog(tmp_path) as catalog:
        collection = catalog.get("shop")
        waited(collection, covered(collection, COUNT - 512))
        assert recall(collection) >= 0.97
    assert built == []
    file = next((tmp_path / "shop" / "indexes").iterdir())
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with Catalog(tmp_path) as catalog:
        collection = catalog.get("shop")
        waited(collection, covered(collection, COUNT - 512))
        assert recall(collection) >= 0.97
    assert built
    assert "damaged or missing; it is made anew" in caplog.text


def test_probes_tell_how_much_searches_find_and_wait_for_each_other(shop: Collection) -> None:
    probe = shop.recall_probe
    assert probe is not None
    assert probe.recall is None
    assert probe.claim()
    assert not probe.claim()
    shop.probe_recall()  # of an item
    shop.ask(vectors_of(9, seed=9)[1:2], Ask(10))
    shop.probe_recall()  # of that query
    assert probe.taken == 2
    assert probe.recall is not None
    assert probe.recall >= 0.8
    assert not probe.claim()  # for a minute


def test_a_probe_tells_of_an_index_that_does_not_find(
    shop: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = shop.recall_probe
    assert probe is not None
    keys = shop._view.indexes[0].keys
    monkeypatch.setattr(Approximate, "proposals", lambda *_: keys[None, :11])
    shop.ask(vectors_of(9, seed=9)[1:2], Ask(10))
    shop.probe_recall()
    assert probe.recall is not None
    assert probe.recall < 0.5


def test_there_are_no_probes_where_searches_are_exact(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        assert catalog.create("shop", SPACE).recall_probe is None


def test_exact_is_a_choice_too(shop: Collection) -> None:
    shop.configure_index(IndexSettings(kind="exact"))
    waited(shop, lambda: shop.index_status().indexed == 0)
    assert recall(shop) == 1
    assert not list((shop._current.folder / "indexes").iterdir())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "HNSW16,SQfp17"}, "no factory string that FAISS knows"),
        ({"kind": "IVF16,PQ7"}, "16 dimensions"),
        ({"kind": "ITQ8,Flat"}, "only graphs"),
        ({"kind": "IVF20000000,Flat"}, "at most 262144 lists"),
        ({"kind": f"IVF{'9' * 5000},Flat"}, "at most 262144 lists"),
        ({"kind": "HNSW65536,Flat"}, "512 links"),
        ({"kind": "PQ16x24"}, "16 bits"),
        ({"target_recall": 0.2}, "use 0.5 to 1"),
        ({"storage": "fp8"}, "fp16, int8, pq"),
    ],
)
def test_an_index_that_cannot_be_is_refused(shop: Collection, settings: dict[str, str], words: str) -> None:
    with pytest.raises(ArgumentInvalid, match=words):
        shop.configure_index(IndexSettings(**settings))  # type: ignore[arg-type]


def test_an_estimate_is_near_what_is_built(shop: Collection) -> None:
    status = shop.index_status()
    expected = estimate(IndexSettings(), status.indexed, 16)
    index_alone = sum(one.memory for one in shop._view.indexes)
    assert expected.memory == pytest.approx(index_alone, rel=0.25)
    assert estimate(IndexSettings(), 4_000_000, 512).factory == "PCAR192,IVF4096,PQ192x4fsr,Refine(SQfp16)"
    assert estimate(IndexSettings(), 200_000, 512).factory == "PCAR192,IVF512,PQ192x4fsr,Refine(SQfp16)"
    assert estimate(IndexSettings(storage="pq"), 10**7, 512).memory < 10**7 * 130
    assert estimate(IndexSettings(), 100, 512).factory == ""


def test_an_index_worse_than_asked_for_is_not_used_unless_it_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_shares", lambda *_: np.full(4, 0.5))
    with Catalog(tmp_path) as catalog:
        collection = catalog.create("shop", SPACE)
        fill(collection)
        waited(collection, lambda: '"kinds": 2' in (collection.get_document("refused") or ""))
        assert recall(collection) == 1
        assert collection.index_status().indexed == 0
    monkeypatch.setattr(indexer, "build", lambda *_: pytest.fail("it was refused already"))
    with Catalog(tmp_path) as catalog:
        collection = catalog.get("shop")
        indexing = collection._tending.indexer
        waited(collection, lambda: indexing._loaded and not indexing._step())
        assert collection.index_status().indexed == 0
    monkeypatch.setattr(indexer, "build", building.build)
    with Catalog(tmp_path) as catalog:
        collection = catalog.get("shop")
        collection.configure_index(IndexSettings(kind="HNSW16,SQfp16"))
        waited(collection, covered(collection, COUNT - 512))
        assert collection.index_status().recall == 0.5


def test_where_lists_find_too_little_there_is_a_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = tuning._shares

    def few_of_lists(index: Approximate, *rest: Any) -> np.ndarray:
        return shares(index, *rest) * (0.5 if "IVF" in index.factory else 1)

    monkeypatch.setattr(tuning, "_shares", few_of_lists)
    with Catalog(tmp_path) as catalog:
        collection = catalog.create("shop", SPACE)
        fill(collection)
        waited(collection, lambda: collection.index_status().factory == "HNSW16,SQfp16")
        assert recall(collection) >= 0.97
        assert estimate(IndexSettings(storage="pq"), 10**5, 512).factory == "PCAR192,IVF512,PQ192x4fsr"


def test_tuning_goes_along_the_border_and_takes_the_cheapest_effort_that_suffices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[tuple[int, int]] = []

    def shares(index: Approximate, *_: Any) -> np.ndarray:
        effort = index.effort
        tried.append((effort.width, effort.refine))
        return np.full(9, 1.0 if effort.width >= 8 and effort.refine >= 4 and sum(tried[-1]) >= 24 else 0.5)

    monkeypatch.setattr(tuning, "_shares", shares)
    part = Part(np.arange(1, COUNT + 1), vectors_of(COUNT), COUNT, np.ones(COUNT, np.bool_))
    index = building.build([part], LISTS, 0.98, lambda: False)
    # A list of 39 rows costs a fourth of a further proposal for each of ten hits.
    assert (index.effort.width, index.effort.refine) == (20, 4)
    assert len(tried) < 25


def test_over_the_wire_an_index_is_chosen_estimated_and_described(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def talk(target: str) -> None:
        with Client(target) as client:
            shop = client.collection("shop")
            info = shop.info()
            assert info.index is not None
            assert (info.index.kind, info.index.factory, info.index.recall) == ("auto", "", 1.0)
            with pytest.raises(InvalidArgument, match="no factory string"):
                shop.configure_index("HNSW16,SQfp17")
            chosen = shop.configure_index("SQ8", target_recall=0.9).index
            assert chosen is not None
            assert (chosen.kind, chosen.target_recall) == ("SQ8", 0.9)
            assert client.estimate_index(4 * 10**6, 512).factory.startswith("PCAR192,IVF4096,")
            with pytest.raises(InvalidArgument, match="item_count"):
                client.estimate_index(0, 512)
        assert run(["collections", "index", "shop", "--server", target]) == 0
        assert run(["collections", "index", "shop", "--estimate", "--server", target]) == 0
        assert run(["collections", "index", "shop", "--kind", "nothing", "--server", target]) == 2

    async def test(wire: Wire) -> None:
        wire.catalog.get("shop").upsert([row("a")])
        await wire.in_thread(talk, wire.target)
        exact = await wire.find(pb.Query(item_id="a"), exact=True, explain=True)
        assert "exact" in exact.explanation.plan

    run_over_wire(tmp_path, test)
    assert "chosen: SQ8, for a recall of 0.9" in capsys.readouterr().err
