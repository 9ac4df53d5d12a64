"""A small product search: photos with attributes in, the nearest products out, filtered as a shop would.

    lookalike serve --data ./shop-data        # in another terminal, until it says that it serves
    python examples/product_search.py index catalogue.csv
    python examples/product_search.py search photo.jpg --where "price < 50 and category = 'hat'"

The CSV has a row for each product: id, path, category, price. A program with only the thin client
(`pip install .`) runs this.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from lookalike import Client


def index(client: Client, catalogue: Path) -> None:
    """Writes all products. Running it again replaces what changed: an id is written once."""
    with catalogue.open(newline="") as file:
        rows = list(csv.DictReader(file))
    shop = client.create_collection("products", recipe="semantic", exist_ok=True)
    report = shop.add(
        [catalogue.parent / row["path"] for row in rows],
        ids=[row["id"] for row in rows],
        attributes=[{"category": row["category"], "price": float(row["price"])} for row in rows],
    )
    for failure in report.failed:
        print(f"left out: {failure.id}: {failure.message}")
    print(f"{report.added} products indexed")


def search(client: Client, photo: Path, where: str, k: int) -> None:
    for hit in client.collection("products").search(photo, k=k, where=where):
        print(f"{hit.score:.3f}  {hit.id}  {hit.attributes['category']}  {hit.attributes['price']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--server", default="localhost:50051")
    commands = parser.add_subparsers(dest="command", required=True)
    indexing = commands.add_parser("index")
    indexing.add_argument("catalogue", type=Path)
    searching = commands.add_parser("search")
    searching.add_argument("photo", type=Path)
    searching.add_argument("--where", default="")
    searching.add_argument("-k", type=int, default=5)
    arguments = parser.parse_args()
    with Client(arguments.server) as client:
        if arguments.command == "index":
            index(client, arguments.catalogue)
        else:
            search(client, arguments.photo, arguments.where, arguments.k)


if __name__ == "__main__":
    main()
