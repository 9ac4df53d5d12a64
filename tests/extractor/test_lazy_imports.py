"""What takes seconds to import is imported by those who need it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = "torchvision torch._dynamo sympy"
EXTRACTION = """
import torch
from lookalike_extractor.backbones import default_preprocessing, load_backbone
from lookalike_extractor.extraction import create_feature_extractor
module = load_backbone("efficientnet_lite0").module
create_feature_extractor(module, ["blocks.10.expand"], verify=False)(torch.zeros(1, 3, 64, 64))
"""


def loaded_by(program: str) -> list[str]:
    told = f"import sys; print(*[name for name in {HEAVY!r}.split() if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", f"{program}\n{told}"], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.mark.parametrize("program", [EXTRACTION, "import lookalike_server.app"], ids=["extractor", "server"])
def test_a_network_without_torchvision_needs_none_of_it(program: str) -> None:
    assert loaded_by(program) == []


def test_torchvisions_own_modules_are_known_once_it_is_there() -> None:
    assert (
        loaded_by(
            "import torchvision, lookalike_extractor.extraction, lookalike_extractor.tracing as tracing\n"
            "assert tracing.is_leaf(torchvision.ops.Permute([0]))"
        )
        == HEAVY.split()
    )
