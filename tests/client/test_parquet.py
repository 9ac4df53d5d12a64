"""Collections as Parquet files: what goes out comes back, and nothing of another space comes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_server import FakeServer
from lookalike import Client
from lookalike.cli.app import run
from lookalike.errors import FailedPrecondition, InvalidArgument
from lookalike.parquet import export_parquet, import_parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def test_what_is_exported_comes_back_as_it_was(client: Client, tmp_path: Path) -> None:
    shop = client.create_collection("shop")
    attributes = [{"price": 2**60, "names": ["ä", None]}, {}, {"n": 1.5}]
    shop.add([b"cat", b"dog", b"owl"], ids=["a", "b", "c"], attributes=attributes)
    assert export_parquet(shop, tmp_path / "shop.parquet") == 3
    with pytest.raises(FileExistsError):
        export_parquet(shop, tmp_path / "shop.parquet")
    again = client.create_collection("again")
    assert import_parquet(again, tmp_path / "shop.parquet").added == 3
    before, after = (list(one.items(descriptors=True)) for one in (shop, again))
    assert [(item.id, item.attributes) for item in after] == [(item.id, item.attributes) for item in before]
    for one, other in zip(before, after, strict=True):
        assert np.allclose(one.descriptor, other.descriptor)
    assert pq.read_table(tmp_path / "shop.parquet").column_names[:2] == ["id", "attributes"]


def test_an_empty_collection_is_a_file_without_rows(client: Client, tmp_path: Path) -> None:
    shop = client.create_collection("shop")
    assert export_parquet(shop, tmp_path / "none.parquet") == 0
    assert import_parquet(shop, tmp_path / "none.parquet").added == 0


def test_files_that_do_not_fit_are_refused(client: Client, tmp_path: Path) -> None:
    shop, file = client.create_collection("shop"), tmp_path / "file.parquet"
    rows = {"id": ["a"], "descriptor": [[1.0, 2.0]]}
    pq.write_table(pa.table(rows), file)
    with pytest.raises(InvalidArgument, match="'a' has 2 elements"):
        import_parquet(shop, file)
    pq.write_table(pa.table({"id": ["a"]}), file)
    with pytest.raises(InvalidArgument, match="no column 'descriptor'"):
        import_parquet(shop, file)
    pq.write_table(pa.table(rows).replace_schema_metadata({"lookalike.space": "another"}), file)
    with pytest.raises(FailedPrecondition, match="of space another"):
        import_parquet(shop, file)
    good = {"id": ["a"], "descriptor": [[1.0] * shop.info().space.dimension]}
    for wrong, told in [
        ({"descriptor": ["hello"]}, "the descriptor of 'a' is no list of numbers"),
        ({"descriptor": pa.array([None], pa.list_(pa.float32()))}, "the descriptor of 'a' is no list"),
        ({"attributes": ["{"]}, "the attributes of 'a' are no JSON: Expecting"),
        ({"attributes": [3]}, "the attributes of 'a' are no JSON object: 3"),
        ({"id": pa.array([None], pa.string())}, "a row has no id"),
    ]:
        pq.write_table(pa.table(good | wrong), file)
        with pytest.raises(InvalidArgument, match=told):
            import_parquet(shop, file)
    file.write_bytes(b"no table")
    with pytest.raises(InvalidArgument, match="no Parquet file"):
        import_parquet(shop, file)
    assert shop.info().item_count == 0


def test_attributes_may_be_a_struct(client: Client, tmp_path: Path) -> None:
    shop, file = client.create_collection("shop"), tmp_path / "file.parquet"
    descriptor = [1.0] * shop.info().space.dimension
    pq.write_table(pa.table({"id": [7], "descriptor": [descriptor], "attributes": [{"price": 3}]}), file)
    assert import_parquet(shop, file).added == 1
    assert shop.get("7").attributes == {"price": 3}


def test_the_command_line_exports_and_imports(
    server: FakeServer, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client.create_collection("shop").add([b"cat"], ids=["a"])
    file, place = str(tmp_path / "shop.parquet"), ["--server", server.target]
    assert run(["collections", "export", "shop", file, *place]) == 0
    assert run(["collections", "import", file, "again", *place]) == 0
    assert run(["collections", "import", str(tmp_path / "nothing"), "again", *place]) == 2
    assert [item.id for item in client.collection("again").items()] == ["a"]
    assert "1 item written to again" in capsys.readouterr().err
    nowhere = str(tmp_path / "no" / "where")
    for command in ("export", "backup"):
        assert run(["collections", command, "shop", nowhere, *place]) == 2
        assert "there is no folder" in capsys.readouterr().err
