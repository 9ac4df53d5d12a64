"""What `lookalike doctor` finds, on a machine that is well and on one that is not."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from certificates import make_authority, make_pair
from lookalike.cli.app import run
from lookalike_server.catalog import Catalog
from lookalike_server.config import RecipeTable, Settings, TapTable
from lookalike_server.doctor import CHECKS, examine, machine


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(address="127.0.0.1:0", data=tmp_path / "data", served_recipes=("semantic",))


def found(check: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[str, str]:
    """State, and message with advice, of one check."""
    monkeypatch.setattr("lookalike_server.doctor.CHECKS", {check: CHECKS[check]})
    (finding,) = examine(settings.model_copy(update=changes))
    return finding.state, f"{finding.message} {finding.advice}"


def test_an_installation_that_is_well_passes_every_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(tmp_path), "--address", "127.0.0.1:0", "--recipes", "semantic"]
    assert run(["doctor", "--json", *arguments]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert [finding["check"] for finding in findings] == list(CHECKS)
    assert {finding["state"] for finding in findings} <= {"ok", "warn"}
    assert "an image becomes descriptors in" in findings[-1]["message"]


def test_a_failure_is_a_line_with_advice_and_a_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike_server.doctor.CHECKS", {"device": CHECKS["device"]})
    assert run(["doctor", "--data", str(tmp_path), "--device", "cuda:99"]) == 1
    assert capsys.readouterr().out.startswith("fail device       device: 'cuda:99' is not there")


def test_a_wrong_setting_is_misuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--address", "nowhere"]) == 2
    assert "must be HOST:PORT" in capsys.readouterr().err


def test_a_check_that_breaks_is_a_finding_and_hides_no_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike_server.doctor.CHECKS", {"broken": lambda _: 1 / 0, "lock": CHECKS["lock"]})
    settings.data.mkdir()
    broken, lock = examine(settings)
    assert (broken.state, lock.state) == ("fail", "ok")
    assert "ZeroDivisionError" in broken.message


def test_a_data_directory_that_is_open_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with Catalog(settings.data):
        state, text = found("lock", settings, monkeypatch)
    assert state == "warn"
    assert f"in use by process {os.getpid()}" in text


def test_a_slow_disk_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike_server.doctor.places._sync_seconds", lambda folder: 0.2)
    state, text = found("data", settings, monkeypatch)
    assert state == "warn"
    assert "a synced write takes 200.0 ms Use a local disk" in text


def test_a_taken_address_fails_unless_somebody_answers_there(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert found("address", settings, monkeypatch, address=address)[0] == "fail"
        silent.listen()
        assert found("address", settings, monkeypatch, address=address)[0] == "warn"


def test_weights_that_are_missing_fail_and_those_to_be_downloaded_warn(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = RecipeTable(backbone="resnet18", taps=(TapTable(node="layer4"),))
    gone = recipe.model_copy(update={"weights": tmp_path / "gone.safetensors"})
    changes = {"served_recipes": ("mine",)}
    assert found("weights", settings, monkeypatch, recipes={"mine": recipe}, **changes)[0] == "warn"
    state, text = found("weights", settings, monkeypatch, recipes={"mine": gone}, **changes)
    assert state == "fail"
    assert "gone.safetensors" in text


def test_a_certificate_that_ends_soon_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = make_authority(tmp_path)
    for days, state in ((3, "warn"), (9, "warn"), (-1, "fail")):
        pair = make_pair(tmp_path, f"ends{days}", authority, days=days)
        files = {"tls_certificate": pair.certificate, "tls_key": pair.key}
        assert found("certificate", settings, monkeypatch, **files)[0] == state


def test_tokens_of_a_broken_file_fail(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text("nonsense")
    assert found("tokens", settings, monkeypatch, token_file=tmp_path / "tokens")[0] == "fail"


def test_front_ends_that_take_from_the_models_are_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found("front-ends", settings, monkeypatch)[0] == "ok"
    monkeypatch.setattr("lookalike_server.device.cores", lambda: 8)
    assert found("front-ends", settings, monkeypatch, front_ends=2, torch_threads=6)[0] == "ok"
    state, text = found("front-ends", settings, monkeypatch, front_ends=2, torch_threads=8)
    assert (state, "beside 8 threads of the model on 8 cores" in text) == ("warn", True)


def test_more_threads_than_cores_are_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert found("threads", settings, monkeypatch, torch_threads=500)[0] == "warn"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    state, text = found("threads", settings, monkeypatch, torch_threads=2)
    assert state == "warn"
    assert "Unset OMP_NUM_THREADS" in text


def test_little_memory_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_LEAST_MEMORY", 1 << 60)
    assert found("memory", settings, monkeypatch)[0] == "warn"
