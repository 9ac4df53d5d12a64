"""Collections: what was acknowledged is there, found, and there again after opening anew."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import lookalike_server.view
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.errors import (
    ArgumentInvalid,
    AttributesInvalid,
    CollectionUnknown,
    DescriptorInvalid,
    Draining,
    FilterInvalid,
)
from lookalike_server.rows import NewRow
from made_rows import SPACE, pointing, row


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Collection]:
    with Catalog(tmp_path) as catalog:
        yield catalog.create("shop", SPACE)


def ids_found(collection: Collection, *values: float, k: int = 10, **options: object) -> list[str]:
    result = collection.search(pointing(*values)[None], k, **options)  # type: ignore[arg-type]
    return [hit.id for hit in result.hits[0]]


def test_an_item_comes_back_as_it_was_written(shop: Collection) -> None:
    written = shop.upsert([NewRow("a", np.array([3, 4, 0, 0], np.float32), '{"n": 1}', b"digest")])
    found = shop.get(["a", "b"], descriptors=True)
    assert list(found) == ["a"]
    item = found["a"]
    assert (item.id, item.attributes_json, item.digest, item.k) == (
        "a",
        '{"n":1}',
        b"digest",
        written.sequence,
    )
    assert item.descriptor is not None
    assert item.descriptor.tolist() == pytest.approx([0.6, 0.8, 0, 0])


def test_an_upsert_tells_what_was_new_and_what_was_replaced(shop: Collection) -> None:
    shop.upsert([row("a"), row("b")])
    written = shop.upsert([row("b", 0, 1), row("c")])
    assert (written.inserted, written.replaced, shop.count) == (1, 1, 3)


def test_a_replaced_item_is_found_in_its_new_place_only(shop: Collection) -> None:
    shop.upsert([row("a", 1, 0), row("b", 0.9, 1)])
    shop.upsert([row("a", 0, 1)])
    assert ids_found(shop, 1, 0) == ["b", "a"]


def test_the_sequence_grows_with_every_change_and_only_then(shop: Collection) -> None:
    first = shop.upsert([row("a"), row("b")]).sequence
    second = shop.delete(["a"]).sequence
    assert first < second == shop.sequence
    assert shop.delete(["a", "nobody"]).sequence == second


def test_items_of_equal_score_come_in_the_order_of_their_ids(shop: Collection) -> None:
    shop.upsert([row(name) for name in "zebra"])
    assert ids_found(shop, 1, k=3) == ["a", "b", "e"]


def test_hits_are_the_nearest_first_with_their_scores_and_attributes(shop: Collection) -> None:
    shop.upsert([row("far", 0, 1, n=1), row("near", 1, 1, n=2), row("same", 1, 0, n=3)])
    hits = shop.search(pointing(1, 0)[None], 2).hits[0]
    assert [(hit.id, hit.attributes_json) for hit in hits] == [("same", '{"n":3}'), ("near", '{"n":2}')]
    assert [hit.score for hit in hits] == pytest.approx([1, 0.5**0.5])


def test_a_search_can_bound_the_score_and_leave_out_an_item_for_each_query(shop: Collection) -> None:
    shop.upsert([row("a", 1, 0), row("b", 1, 0.1), row("c", 0, 1)])
    assert ids_found(shop, 1, 0, min_score=0.9) == ["a", "b"]
    queries = np.stack([pointing(1, 0), pointing(1, 0)])
    result = shop.search(queries, 1, exclude=["a", ""])
    assert [[hit.id for hit in hits] for hits in result.hits] == [["b"], ["a"]]


def test_a_filtered_search_finds_k_items_whenever_k_fit(shop: Collection) -> None:
    shop.upsert([row(f"cheap-{i}", 0, 1, price=i) for i in range(5)])
    shop.upsert([row(f"dear-{i}", 1, 0, price=1000) for i in range(200)])
    assert ids_found(shop, 1, 0, k=3, where="price < 100") == ["cheap-0", "cheap-1", "cheap-2"]
    assert ids_found(shop, 1, 0, where="price < 0") == []


def test_items_are_paged_in_the_order_of_their_last_write(shop: Collection) -> None:
    shop.upsert([row(name, n=i) for i, name in enumerate("abcd")])
    page = shop.list(0, 2)
    shop.upsert([row("a")])
    assert [item.id for item in page + shop.list(page[-1].k, 10)] == ["a", "b", "c", "d", "a"]
    assert [item.id for item in shop.list(0, 10, "n >= 2")] == ["c", "d"]


def test_a_snapshot_holds_one_state_row_by_row(shop: Collection) -> None:
    shop.upsert(
        [NewRow("a", pointing(1), '{"n":1}', b"1"), row("gone"), NewRow("b", pointing(0, 1), "", b"2")]
    )
    shop.delete(["gone"])
    snapshot = shop.snapshot()
    assert (snapshot.ids, snapshot.digests) == (["a", "b"], [b"1", b"2"])
    assert snapshot.attributes_json == ['{"n":1}', "{}"]
    assert snapshot.descriptors.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert snapshot.sequence == shop.sequence
    assert shop.snapshot("n = 1").ids == ["a"]


@pytest.mark.parametrize("item_id", ["", "x" * 1025, "é" * 513, "a\0b", "\ud800"])
def test_an_id_must_be_one_to_1024_bytes_without_nul(item_id: str) -> None:
    with pytest.raises(ArgumentInvalid):
        NewRow(item_id, pointing(1))


@pytest.mark.parametrize(
    "text",
    [
        *("[1]", "3", "null", "{", '{"a": NaN}', '{"a": 1e999}', '{"a": 1, "a": 2}', '{"a": "\\u0000"}'),
        *('{"a": "\\ud800"}', '{"a": "%s"}' % ("x" * 65_536), '{"a":' * 101 + "1" + "}" * 101),
    ],
)
def test_attributes_must_be_a_json_object_of_bounded_size(text: str) -> None:
    with pytest.raises(AttributesInvalid):
        NewRow("a", pointing(1), text)


@pytest.mark.parametrize("fault", [np.nan, np.inf, 0.0])
def test_a_descriptor_must_have_a_direction(fault: float) -> None:
    with pytest.raises(DescriptorInvalid):
        NewRow("a", np.full(4, fault, np.float32))


def test_a_tiny_or_huge_descriptor_is_scaled_like_any_other() -> None:
    assert NewRow("a", np.full(4, 1e-30, np.float32)).descriptor.tolist() == [0.5] * 4
    assert NewRow("a", np.full(4, 3e38, np.float32)).descriptor.tolist() == [0.5] * 4


def test_a_wrong_item_keeps_its_whole_call_out(shop: Collection) -> None:
    with pytest.raises(DescriptorInvalid, match=r"items\[1\].*takes \[4\]"):
        shop.upsert([row("a"), NewRow("b", np.ones(5, np.float32))])
    with pytest.raises(ArgumentInvalid, match="'a' comes twice"):
        shop.upsert([row("a"), row("a")])
    with pytest.raises(DescriptorInvalid):
        shop.search(np.ones((1, 5), np.float32), 1)
    with pytest.raises(FilterInvalid):
        shop.search(pointing(1)[None], 1, where="price <")
    assert (shop.count, shop.sequence) == (0, 0)


def test_big_whole_numbers_and_unusual_letters_survive_in_attributes(shop: Collection) -> None:
    attributes = {"serial": 2**70, "größe": "ß\u2028😀", 'quote"d': [1, None, {"x": 1.5}]}
    shop.upsert([NewRow("é😀", pointing(1), json.dumps(attributes))])
    assert json.loads(shop.get(["é😀"])["é😀"].attributes_json) == attributes


def test_many_writers_and_searchers_at_once_see_whole_states(shop: Collection) -> None:
    """Each writer moves its pair of items together: no search may find one without the other."""
    faults: list[str] = []
    stop = threading.Event()

    def write(writer: int) -> None:
        for i in range(40):
            shop.upsert([row(f"{writer}-left", 1, i, turn=i), row(f"{writer}-right", 1, i, turn=i)])

    def search() -> None:
        while not stop.is_set():
            for where in ("", "turn >= 0"):
                hits = shop.search(pointing(1)[None], 100, where=where).hits[0]
                turns: dict[str, list[str]] = {}
                for hit in hits:
                    turns.setdefault(hit.id.split("-")[0], []).append(hit.attributes_json)
                faults.extend(str(t) for t in turns.values() if len(t) != 2 or len(set(t)) != 1)

    searchers = [threading.Thread(target=search) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in searchers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in searchers:
        thread.join()
    assert faults == []
    assert shop.count == 8


def test_a_closed_collection_refuses_every_call_and_a_deleted_one_says_so(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        deleted, closed = catalog.create("deleted", SPACE), catalog.create("closed", SPACE)
        catalog.delete("deleted")
    with pytest.raises(CollectionUnknown, match="was deleted"):
        deleted.upsert([row("a")])
    with pytest.raises(Draining):
        closed.search(pointing(1)[None], 1)


class CollectionMachine(RuleBasedStateMachine):
    """Random calls beside a plain dictionary, with the directory closed and opened in between."""

    names = st.sampled_from([f"item-{i}" for i in range(12)])
    directions = st.lists(st.integers(-2, 2), min_size=4, max_size=4).filter(any)
    prices = st.integers(0, 3)

    @initialize()
    def begin(self) -> None:
        self.part_rows = lookalike_server.view.PART_ROWS
        lookalike_server.view.PART_ROWS = 8  # so that parts fill, become segments and are joined
        self.root = Path(tempfile.mkdtemp())
        self.catalog = Catalog(self.root)
        self.shop = self.catalog.create("shop", SPACE)
        self.model: dict[str, NewRow] = {}

    def teardown(self) -> None:
        if hasattr(self, "root"):
            self.catalog.close()
            shutil.rmtree(self.root)
            lookalike_server.view.PART_ROWS = self.part_rows

    @rule(items=st.dictionaries(names, st.tuples(directions, prices), max_size=6))
    def upsert(self, items: dict[str, tuple[list[int], int]]) -> None:
        rows = [row(name, *direction, price=price) for name, (direction, price) in items.items()]
        written = self.shop.upsert(rows)
        assert written.replaced == len(items.keys() & self.model.keys())
        for new in rows:
            self.model.pop(new.id, None)
            self.model[new.id] = new

    @rule(names=st.sets(names, max_size=4))
    def delete(self, names: set[str]) -> None:
        assert self.shop.delete(sorted(names)).deleted == len(names & self.model.keys())
        for name in names:
            self.model.pop(name, None)

    @rule()
    def open_anew(self) -> None:
        sequence = self.shop.sequence
        self.catalog.close()
        self.catalog = Catalog(self.root)
        self.shop = self.catalog.get("shop")
        assert self.shop.sequence == sequence

    @rule()
    def crash(self) -> None:
        """Goes on from the files as a kill would leave them."""
        left, sequence = Path(tempfile.mkdtemp()), self.shop.sequence
        with contextlib.suppress(shutil.Error):  # a segment that was replaced meanwhile
            shutil.copytree(
                self.root, left, ignore=shutil.ignore_patterns("*-shm", ".reserve"), dirs_exist_ok=True
            )
        self.catalog.close()
        shutil.rmtree(self.root)
        self.root, self.catalog = left, Catalog(left)
        self.shop = self.catalog.get("shop")
        assert self.shop.sequence == sequence

    @rule(direction=directions, k=st.integers(1, 15), price=prices, filtered=st.booleans())
    @precondition(lambda self: self.model)
    def search(self, direction: list[int], k: int, price: int, filtered: bool) -> None:
        query = pointing(*direction)
        fit = [
            r for r in self.model.values() if not filtered or json.loads(r.attributes_json)["price"] >= price
        ]
        scores = {
            r.id: float(np.float32(np.dot(query.astype(float), r.descriptor.astype(float)))) for r in fit
        }
        hits = self.shop.search(query[None], k, where=f"price >= {price}" if filtered else "").hits[0]
        best = sorted(scores, key=lambda name: (-scores[name], name))[:k]
        assert [hit.score for hit in hits] == pytest.approx([scores[name] for name in best], abs=1e-6)
        assert all(scores[hit.id] == pytest.approx(hit.score, abs=1e-6) for hit in hits)
        assert len({hit.id for hit in hits}) == len(hits)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        snapshot = self.shop.snapshot()
        assert snapshot.ids == [item.id for item in self.shop.list(0, -1)] == list(self.model)
        assert self.shop.count == len(self.model)
        for item_id, descriptor in zip(snapshot.ids, snapshot.descriptors, strict=True):
            assert np.array_equal(descriptor, self.model[item_id].descriptor)


TestCollectionMachine = CollectionMachine.TestCase
TestCollectionMachine.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
