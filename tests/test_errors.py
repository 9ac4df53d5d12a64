"""Every error of the server has a class in the client, and every reason is documented."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import grpc
import lookalike.errors
import lookalike_server.errors
import pytest
from lookalike_extractor.errors import LookalikeError


def family(root: type) -> list[type]:
    return [root, *(member for child in root.__subclasses__() for member in family(child))]


SERVER_ERRORS = sorted(
    {e for e in family(LookalikeError) if "lookalike" in e.__module__}, key=lambda e: e.__name__
)
CLIENT_CODES = {e.code for e in family(lookalike.errors.LookalikeError)}


@pytest.mark.parametrize("error", SERVER_ERRORS, ids=lambda e: e.__name__)
def test_each_server_error_has_a_status_that_the_client_knows(error: type[LookalikeError]) -> None:
    assert error.status in grpc.StatusCode.__members__
    assert error.status in CLIENT_CODES


@pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK], ids=str)
def test_each_status_code_has_one_place_in_the_client(code: grpc.StatusCode) -> None:
    classes = [e for e in lookalike.errors.LookalikeError.__subclasses__() if e.code == code.name]
    assert len(classes) == 1


def test_each_reason_belongs_to_one_status() -> None:
    reasons: dict[str, set[str]] = {}
    for error in SERVER_ERRORS:
        reasons.setdefault(error.reason, set()).add(error.status)
    assert {r: s for r, s in reasons.items() if len(s) > 1} == {}


def test_an_error_survives_pickling_with_its_metadata() -> None:
    error = lookalike_server.errors.SpaceMismatch("two spaces", field="items[0].space_id")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.message, again.metadata) == (type(error), error.message, error.metadata)


def test_each_reason_is_documented_with_its_status() -> None:
    guide = (Path(__file__).resolve().parents[1] / "docs" / "api.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|", guide, re.MULTILINE)
    assert set(rows) == {(error.reason, error.status) for error in SERVER_ERRORS}
