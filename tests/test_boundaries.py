"""Each part knows only what it may know."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def imported_modules(part: str, *, lazily_too: bool) -> dict[str, set[str]]:
    """Top-level names of what each module of a part imports; `lazily_too` counts imports inside functions."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / part).rglob("*.py")):
        tree = ast.parse(path.read_text())
        nodes = ast.walk(tree) if lazily_too else iter(tree.body)
        names: set[str] = set()
        for node in nodes:
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names.add(node.module.split(".")[0])
        found[str(path.relative_to(ROOT))] = names
    assert found, f"{part} has no modules"
    return found


def importers(part: str, stranger: str, *, lazily_too: bool = True) -> list[str]:
    """The modules of a part that import `stranger`."""
    return [m for m, names in imported_modules(part, lazily_too=lazily_too).items() if stranger in names]


@pytest.mark.parametrize("stranger", ["grpc", "faiss", "google", "lookalike", "lookalike_server"])
def test_the_extractor_knows_neither_wire_nor_index(stranger: str) -> None:
    assert importers("extractor", stranger) == []


@pytest.mark.parametrize("starter", ["Thread(", "Executor(", "Process(", "asyncio"])
def test_the_extractor_starts_no_threads(starter: str) -> None:
    assert [path for path in (ROOT / "extractor").rglob("*.py") if starter in path.read_text()] == []


@pytest.mark.parametrize("stranger", ["torch", "torchvision", "faiss"])
def test_the_client_never_imports_torch_or_faiss(stranger: str) -> None:
    assert importers("client", stranger) == []


@pytest.mark.parametrize("stranger", ["lookalike_server", "lookalike_extractor"])
def test_the_client_imports_the_heavy_parts_only_inside_functions(stranger: str) -> None:
    assert importers("client", stranger, lazily_too=False) == []


@pytest.mark.parametrize("part", ["proto", "client", "server", "extractor"])
def test_source_roots_are_no_packages(part: str) -> None:
    assert not (ROOT / part / "__init__.py").exists()
