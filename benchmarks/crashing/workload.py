"""What is written while the recorder watches: the same steps for the same seed, one after the other."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lookalike_extractor.recipe import Space
from lookalike_server import current, reserve, view
from lookalike_server.catalog import Catalog
from lookalike_server.rows import NewRow

SPACE = Space(id="crashing", dimension=8, recipe="crashing")
PART_ROWS = 16  # so that parts fill, become segments and are joined
STEPS = 80
ALIAS = "alias"
_NAMES = 60


@dataclass(frozen=True)
class Step:
    """One acknowledged call, and what it should leave behind: id to version, and the last alias's version."""

    kind: str
    ids: tuple[str, ...]
    version: int
    state: dict[str, int]


def row(item_id: str, version: int) -> NewRow:
    direction = np.random.default_rng([version, int(item_id)]).standard_normal(SPACE.dimension)
    return NewRow(item_id, direction.astype(np.float32), json.dumps({"version": version}))


def steps(seed: int) -> Iterator[Step]:
    chance, state = random.Random(seed), dict[str, int]()
    for version in range(STEPS):
        kind = chance.choices(["upsert", "delete", "document", "alias", "reopen"], [63, 20, 5, 4, 8])[0]
        ids = tuple(str(i) for i in chance.sample(range(_NAMES), chance.randint(1, 8)))
        if kind == "upsert":
            state = state | dict.fromkeys(ids, version)
        elif kind == "delete":
            state = {item_id: old for item_id, old in state.items() if item_id not in ids}
        elif kind == "alias":
            state = state | {ALIAS: version}
        yield Step(kind, ids, version, state)


def work(root: Path, seed: int) -> None:
    view.PART_ROWS, reserve.RESERVE_BYTES = PART_ROWS, 4096
    current._SETTLE_BYTES = 200_000  # so that the log is emptied every few calls
    acknowledged = os.open(root / "acknowledged", os.O_WRONLY | os.O_CREAT)
    catalog = Catalog(root / "data")
    shop = catalog.create("shop", SPACE, ["version"])
    os.write(acknowledged, b"0")
    for step in steps(seed):
        if step.kind == "upsert":
            shop.upsert([row(item_id, step.version) for item_id in step.ids])
        elif step.kind == "delete":
            shop.delete(step.ids)
        elif step.kind == "document":
            shop.set_document("version", str(step.version))
        elif step.kind == "alias":
            catalog.set_alias(f"shop-{step.version:02}", "shop")
        else:
            catalog.close()
            catalog = Catalog(root / "data")
            shop = catalog.get("shop")
        os.write(acknowledged, b"1")
    catalog.close()


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
