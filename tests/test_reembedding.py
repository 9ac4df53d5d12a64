"""A collection copied to another recipe: a real server, tiny photos, and what may happen meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from lookalike import Client, Collection
from lookalike.cli.app import run
from lookalike.errors import FailedPrecondition, InvalidArgument
from lookalike.records import Item
from lookalike.reembedding import file_of, reembed
from photos import encode, photo

NUMBERS = count()
NAMES = ("coffee", "astronaut", "rocket", "chelsea", "retina")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five tiny photos."""
    for name in NAMES:
        (tmp_path / f"{name}.jpg").write_bytes(encode(photo(name).resize((48, 32))))
    return tmp_path


@pytest.fixture
def shop(client: Client, folder: Path) -> Collection:
    """The photos under an alias, in a collection of the default recipe with an index on an attribute."""
    number = next(NUMBERS)
    shelf = client.create_collection(f"old-{number}", "near_duplicate", attribute_indexes=["n"])
    paths = sorted(folder.glob("*.jpg"))
    shelf.add(paths, ids=[path.stem for path in paths], attributes=rows(paths))
    return client.set_alias(f"shop-{number}", shelf.name)


def rows(paths: list[Path]) -> Iterator[dict[str, object]]:
    return ({"path": str(path), "n": n, "serial": 2**60 + n} for n, path in enumerate(paths))


def new_name(shop: Collection) -> str:
    return shop.name.replace("shop", "new")


def contents(collection: Collection) -> dict[str, tuple[object, bytes]]:
    return {item.id: (item.attributes, item.digest) for item in collection.items()}


def test_a_copy_has_the_same_items_and_takes_the_place_of_the_old_collection(
    client: Client, shop: Collection
) -> None:
    before = contents(shop)
    report = reembed(shop, new_name(shop), "semantic", alias=shop.name)
    assert (report.copied, report.item_count, report.missing, report.switched) == (5, 5, (), True)
    info = shop.info()
    assert (info.name, info.recipe, info.attribute_indexes) == (new_name(shop), "semantic", ("n",))
    assert contents(shop) == before == contents(client.collection(shop.name.replace("shop", "old")))
    assert shop.search(photo("coffee").resize((48, 32)), k=1)[0].id == "coffee"
    with pytest.raises(InvalidArgument, match="has recipe 'semantic' already"):
        reembed(shop, "again", "semantic", alias=shop.name)


def test_the_alias_is_left_while_photos_are_gone_or_have_changed(
    client: Client, shop: Collection, folder: Path
) -> None:
    (folder / "coffee.jpg").unlink()
    (folder / "rocket.jpg").write_bytes((folder / "retina.jpg").read_bytes())
    shop.upsert(["nowhere"], [client.embed(photo("coffee"))])
    report = reembed(shop, new_name(shop), "semantic", alias=shop.name)
    assert {failure.id: failure.reason for failure in report.missing} == {
        "coffee": "FILE_NOT_FOUND",
        "rocket": "FILE_CHANGED",
        "nowhere": "FILE_UNKNOWN",
    }
    assert (report.copied, report.switched) == (3, False)
    assert shop.info().recipe == "near_duplicate"
    again = reembed(shop, new_name(shop), "semantic", alias=shop.name, allow_missing=True)
    assert (again.copied, again.item_count, len(again.missing), again.switched) == (0, 3, 3, True)
    assert shop.info().recipe == "semantic"


def test_what_is_written_and_deleted_meanwhile_is_taken_over(shop: Collection, folder: Path) -> None:
    calls = count(1)

    def pictures(item: Item) -> str | None:
        if next(calls) == 5:
            shop.delete("astronaut")
            shop.add([folder / "coffee.jpg"], ids=["late"], attributes=[{"path": str(folder / "coffee.jpg")}])
            shop.add([folder / "retina.jpg"], ids=["rocket"])
        return file_of(item) or str(folder / "retina.jpg")

    report = reembed(shop, new_name(shop), "semantic", pictures=pictures)
    assert (report.deleted, report.item_count, report.missing) == (1, 5, ())
    old, new = contents(shop), contents(shop._client.collection(new_name(shop)))
    assert new == old
    assert {"late", "rocket"} <= set(new)
    assert "astronaut" not in new


def test_what_comes_at_the_moment_of_the_switch_follows_unless_it_was_replaced(
    client: Client, shop: Collection, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = client.collection(shop.info().name)
    switch = client.set_alias
    here = {"path": str(folder / "retina.jpg")}

    def busy(alias: str, name: str) -> Collection:
        """Both collections are written to before the copier looks again."""
        old.add([folder / "retina.jpg"] * 2, ids=["late", "coffee"], attributes=[here, here])
        old.delete("rocket")
        switched = switch(alias, name)
        switched.add([folder / "chelsea.jpg"] * 2, ids=["coffee", "own"])
        return switched

    monkeypatch.setattr(client, "set_alias", busy)
    assert reembed(shop, new_name(shop), "semantic", alias=shop.name).switched
    new = contents(shop)
    assert set(new) == {"astronaut", "chelsea", "coffee", "late", "own", "retina"}
    assert new["coffee"] == new["own"]


def test_a_newer_version_that_cannot_be_copied_leaves_no_older_one_behind(
    shop: Collection, folder: Path
) -> None:
    reembed(shop, new_name(shop), "semantic")
    shop.add([folder / "coffee.jpg"], ids=["coffee"], attributes=[{"path": "/nowhere.jpg"}])
    report = reembed(shop, new_name(shop), "semantic")
    assert ([failure.id for failure in report.missing], report.item_count) == (["coffee"], 4)


SLOW = """
import sys, time
from lookalike import Client
from lookalike.reembedding import file_of, reembed

def pictures(item):
    if item.attributes["n"] == 90:
        time.sleep(600)
    return file_of(item)

with Client(sys.argv[1]) as client:
    reembed(client.collection(sys.argv[2]), sys.argv[3], "semantic", alias=sys.argv[2], pictures=pictures)
"""


def test_a_killed_copy_goes_on_where_it_was(client: Client, folder: Path) -> None:
    number, path = next(NUMBERS), folder / "coffee.jpg"
    shelf = client.create_collection(f"many-{number}")
    attributes = [{"path": str(path), "n": n} for n in range(100)]
    shelf.add([path] * 100, ids=[f"{n}" for n in range(100)], attributes=attributes)
    client.set_alias(f"much-{number}", shelf.name)
    names = (f"much-{number}", f"more-{number}")
    process = subprocess.Popen([sys.executable, "-c", SLOW, client.target, *names])
    wait_until(lambda: any(one.name == names[1] and one.item_count for one in client.collections()))
    process.kill()
    process.wait()
    assert client.collection(names[0]).info().name == shelf.name
    there = client.collection(names[1]).info().item_count
    report = reembed(client.collection(names[0]), names[1], "semantic", alias=names[0])
    assert 0 < there < 100
    assert (report.copied, report.switched) == (100 - there, True)
    assert contents(client.collection(names[0])) == contents(shelf)


def wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_what_would_do_harm_is_refused_before_the_work(client: Client, shop: Collection) -> None:
    name = new_name(shop)
    other = client.create_collection(f"other-{name}", "semantic")
    other.add([photo("coffee")], ids=["theirs"])
    with pytest.raises(FailedPrecondition, match=r"1 of the items .* as 'theirs'"):
        reembed(shop, other.name, "semantic")
    with pytest.raises(InvalidArgument, match="is a collection"):
        reembed(shop, name, "semantic", alias=other.name)
    client.set_alias(f"alias-{name}", other.name)
    with pytest.raises(FailedPrecondition, match="stands for"):
        reembed(shop, name, "semantic", alias=f"alias-{name}")
    with pytest.raises(FailedPrecondition, match="is in use as"):
        reembed(shop, other.name, "semantic", delete_others=True)
    assert [item.id for item in other.items()] == ["theirs"]
    client.delete_alias(f"alias-{name}")
    assert reembed(shop, other.name, "semantic", delete_others=True).deleted == 1


def test_the_command_line_copies_what_it_indexed(
    client: Client, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = next(NUMBERS)
    old, new, alias, place = f"l-{number}", f"r-{number}", f"a-{number}", ["--server", client.target]
    assert run(["index", str(folder), "-c", old, "--recipe", "near_duplicate", *place]) == 0
    (folder / "coffee.jpg").unlink()
    command = ["reembed", old, new, "--recipe", "semantic", "--alias", alias, *place]
    assert run(command) == 1
    told = capsys.readouterr()
    assert f"copied 4 photos; {new} has 4 items" in told.out
    assert f"{alias} was left as it is" in told.err
    assert "coffee.jpg: there is no such file" in told.err
    assert run([*command, "--allow-missing", "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["switched"]
    assert f"{alias} stands for {new} now" in told.err
