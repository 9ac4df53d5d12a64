"""The guide lists every setting, with the name and the default that it has."""

from __future__ import annotations

import re
from pathlib import Path

from lookalike_server.config import Settings

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "deployment.md").read_text()


def test_the_guide_lists_every_setting() -> None:
    listed = re.findall(r"^\| `(\w+)` \| `LOOKALIKE_(\w+)` \|", GUIDE, re.MULTILINE)
    assert {name for name, _ in listed} | {"recipes"} == set(Settings.model_fields)
    assert all(variable == name.upper() for name, variable in listed)
