"""Importing the client is cheap, and brings in nothing that it does not need."""

from __future__ import annotations

import statistics
import subprocess
import sys

import pytest

HEAVY = "torch torchvision faiss lookalike_server lookalike_extractor PIL click rich jinja2 pandas"


def run(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "statement", ["import lookalike", "from lookalike import Client; Client('localhost:1').close()"]
)
def test_the_client_loads_nothing_heavy(statement: str) -> None:
    loaded = run(f"{statement}; import sys; print([m for m in {HEAVY!r}.split() if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_importing_takes_less_than_four_tenths_of_a_second() -> None:
    program = "import time; t = time.process_time(); import lookalike; print(time.process_time() - t)"
    assert statistics.median(float(run(program)) for _ in range(3)) < 0.4


def test_the_door_names_what_it_offers() -> None:
    import lookalike

    assert {"Client", "Collection", "LookalikeError", "__version__"} <= set(dir(lookalike))
    assert lookalike.__version__
    for name in lookalike.__all__:
        assert getattr(lookalike, name).__name__ == name
    with pytest.raises(AttributeError, match="Klient"):
        lookalike.Klient  # noqa: B018


def test_an_engine_that_is_not_installed_is_told_with_the_line_that_brings_it() -> None:
    program = (
        "import sys; sys.modules['lookalike_server'] = None\n"
        "from lookalike import Client, errors\n"
        "try: Client.embedded()\n"
        "except errors.ExtraMissing as error: print(error)"
    )
    assert "pip install 'lookalike[server]'" in run(program)
