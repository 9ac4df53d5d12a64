"""Each example does what its first lines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from lookalike import Client
from photos import encode, photo, resized

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(script: str, *arguments: str | Path) -> str:
    result = subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments], capture_output=True, text=True, timeout=240
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("coffee", "chelsea", "rocket"):
        (tmp_path / f"{name}.jpg").write_bytes(encode(photo(name)))
    (tmp_path / "coffee-small.jpg").write_bytes(encode(resized(photo("coffee"), 0.5)))
    return tmp_path


def test_two_copies_of_a_picture_are_alike(folder: Path) -> None:
    printed = run("embeddings.py", folder / "coffee.jpg", folder / "coffee-small.jpg")
    assert float(printed.split()[-1]) > 0.9


def test_copies_in_a_folder_are_grouped(folder: Path) -> None:
    printed = run("duplicates.py", folder)
    assert "4 photos, 1 groups" in printed
    assert "coffee-small.jpg" in printed


def test_products_are_found_by_photo_and_price(folder: Path, client: Client) -> None:
    (folder / "catalogue.csv").write_text(
        "id,path,category,price\nmug,coffee.jpg,kitchen,9\ncat,chelsea.jpg,pets,90\nkit,rocket.jpg,toys,30\n"
    )
    server = ("--server", client.target)
    assert "3 products indexed" in run("product_search.py", *server, "index", folder / "catalogue.csv")
    photo_of_mug = folder / "coffee-small.jpg"
    assert run("product_search.py", *server, "search", photo_of_mug).split()[1] == "mug"
    cheap = run("product_search.py", *server, "search", photo_of_mug, "--where", "price > 20 and price < 50")
    assert [line.split()[1] for line in cheap.splitlines()] == ["kit"]


def test_a_pyramid_on_named_nodes_takes_a_training_step() -> None:
    printed = run("fpn.py")
    assert 0 < float(printed.split()[-1]) < 1e6
