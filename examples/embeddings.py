"""Descriptors of your own pictures, and how alike two of them are.

    python examples/embeddings.py photo.jpg other.jpg [--server localhost:50051]

Without --server the engine runs inside this program (needs the `server` extra).
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator

from lookalike import Client


@contextlib.contextmanager
def connect(server: str | None) -> Iterator[Client]:
    """A client of `server`, or of an engine of our own that leaves nothing behind."""
    with contextlib.ExitStack() as stack:
        if server:
            yield stack.enter_context(Client(server))
        else:
            data = stack.enter_context(tempfile.TemporaryDirectory())
            yield stack.enter_context(Client.embedded(data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photo")
    parser.add_argument("other")
    parser.add_argument("--server", help="HOST:PORT of a running server")
    arguments = parser.parse_args()
    with connect(arguments.server) as client:
        photo = client.embed(arguments.photo)
        other = client.embed(arguments.other)
    # Descriptors have length 1, so their inner product is the cosine similarity, -1..1.
    print(f"{photo.shape[0]} dimensions, similarity {photo @ other:.3f}")


if __name__ == "__main__":
    main()
