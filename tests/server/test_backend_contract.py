"""What every keeper of collections must do, whatever it is made of. A new one is a line in `BACKENDS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from lookalike_server.answers import Ask
from lookalike_server.backend import CollectionBackend, IndexBackend
from lookalike_server.catalog import Catalog
from lookalike_server.errors import (
    ArgumentInvalid,
    CollectionExists,
    CollectionUnknown,
    DescriptorInvalid,
    FilterInvalid,
)
from lookalike_server.rows import NewRow
from lookalike_server.scan import exact_scores
from made_rows import SPACE, pointing, row

BACKENDS: dict[str, Callable[[Path], IndexBackend]] = {"embedded": Catalog}

Opened = Callable[[], IndexBackend]


@pytest.fixture(params=BACKENDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Opens the same place again each time."""
    return lambda: BACKENDS[request.param](tmp_path)


@pytest.fixture
def shop(opened: Opened) -> Iterator[CollectionBackend]:
    with closing(opened()) as backend:
        yield backend.create("shop", SPACE)


def found(collection: CollectionBackend, ask: Ask, *values: float, own: str = "") -> list[str]:
    return [hit.id for hit in collection.ask(pointing(*values)[None], ask, [own]).hits[0]]


def test_collections_are_made_found_listed_and_deleted(opened: Opened) -> None:
    with closing(opened()) as backend:
        backend.create("b", SPACE)
        backend.create("a", SPACE)
        assert [one.name for one in backend.list()] == ["a", "b"]
        assert backend.get("a").space == SPACE
        with pytest.raises(CollectionExists):
            backend.create("a", SPACE)
        with pytest.raises(ArgumentInvalid):
            backend.create("A", SPACE)
        backend.delete("a")
        with pytest.raises(CollectionUnknown, match="There is no collection"):
            backend.get("a")


def test_what_was_written_is_there_after_opening_again(opened: Opened) -> None:
    with closing(opened()) as backend:
        shop = backend.create("shop", SPACE)
        shop.upsert([NewRow("a", pointing(3, 4), '{"n": 1}', b"digest"), row("b"), row("c")])
        shop.delete(["b"])
        shop.set_document("table", "[1]")
        sequence = shop.sequence
    with closing(opened()) as backend:
        shop = backend.get("shop")
        assert (shop.count, shop.sequence, shop.get_document("table")) == (2, sequence, "[1]")
        item = shop.get(["a", "b"], descriptors=True)
        assert list(item) == ["a"]
        assert (item["a"].attributes_json, item["a"].digest) == ('{"n":1}', b"digest")
        assert item["a"].descriptor is not None
        assert item["a"].descriptor.tolist() == pytest.approx([0.6, 0.8, 0, 0])
        assert shop.verify().problems == ()


def test_a_write_is_whole_or_not_at_all_and_numbers_grow_with_changes_only(shop: CollectionBackend) -> None:
    first = shop.upsert([row("a"), row("b")])
    with pytest.raises(ArgumentInvalid):
        shop.upsert([row("c"), row("c")])
    with pytest.raises(DescriptorInvalid):
        shop.upsert([row("c"), NewRow("d", np.ones(5, np.float32))])
    assert (shop.count, shop.sequence) == (2, first.sequence)
    second = shop.upsert([row("b"), row("c")])
    assert (second.inserted, second.replaced) == (1, 1)
    third = shop.delete(["a", "nobody"])
    assert (third.deleted, shop.delete(["a"]).deleted) == (1, 0)
    assert first.sequence < second.sequence < third.sequence == shop.sequence


def test_searches_find_what_a_loop_over_all_items_finds(shop: CollectionBackend) -> None:
    random = np.random.default_rng(1)
    directions = random.integers(-2, 3, (120, 4)).astype(np.float32)
    directions[:, 0] += 2.5
    items = [NewRow(f"{i:03}", d, json.dumps({"n": i})) for i, d in enumerate(directions)]
    shop.upsert(items)
    query = pointing(1, 0.3)
    for where, chosen in (("", items), ("n < 20", items[:20]), ("n < 0", [])):
        scores = exact_scores(query, np.array([one.descriptor for one in chosen] or [query]))
        ranked = sorted(zip((-scores).tolist(), [one.id for one in chosen], strict=False))
        ids = [item_id for _, item_id in ranked]
        assert found(shop, Ask(7, where), 1, 0.3) == ids[:7]
        near = [item_id for score, item_id in ranked if -score >= 0.8]
        assert found(shop, Ask(500, where, 0.8, every=True), 1, 0.3) == near
        assert [item.id for item in shop.list(0, 500, where)] == [one.id for one in chosen]
        assert shop.snapshot(where).ids == [one.id for one in chosen]
    assert "005" not in found(shop, Ask(200), 1, 0.3, own="005")
    with pytest.raises(FilterInvalid):
        shop.ask(query[None], Ask(1, "n <"))
