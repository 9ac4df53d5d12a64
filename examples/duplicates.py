"""Which pictures of a folder show the same thing, and which one to keep.

    python examples/duplicates.py ~/Pictures

The command `lookalike duplicates` does this and more: a report with thumbnails, and no second look at photos
that have not changed. Here is what it is made of. Needs the `server` extra.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from lookalike import Client

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)

    with tempfile.TemporaryDirectory() as data, Client.embedded(data) as client:
        collection = client.create_collection("photos", recipe="near_duplicate")
        report = collection.add(photos, ids=[str(photo) for photo in photos])
        for failure in report.failed:
            print(f"left out: {failure.source}: {failure.message}")
        groups = collection.find_duplicates(policy="most_connected")

    for group in groups:
        print(f"keep {group.representative_id}")
        for member in group.members:
            if member.id != group.representative_id:
                print(f"     {member.id}  {'identical' if member.exact else f'{member.score:.3f}'}")
    print(f"{report.added} photos, {len(groups)} groups")


if __name__ == "__main__":
    main()
