"""The files in deploy/: each can be read by what it is for, and names only what exists."""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lookalike_server.config import Settings
from lookalike_server.loading import load_settings
from operated import free_address, operated, scraped

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
GUIDE = (DEPLOY.parent / "docs" / "deployment.md").read_text()


def names_in(text: str) -> set[str]:
    """Metrics as they are written in queries, without what a histogram adds."""
    found = set(re.findall(r"\b(?:lookalike|process)_[a-z_]+\b", text))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def expressions(value: Any) -> Iterator[str]:
    """Every query of a dashboard, wherever it stands."""
    if isinstance(value, dict):
        yield from (text for key, text in value.items() if key in ("expr", "query") and isinstance(text, str))
        yield from (text for child in value.values() for text in expressions(child))
    elif isinstance(value, list):
        yield from (text for child in value for text in expressions(child))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name and type of each metric that a running server tells."""
    address = free_address()
    with (
        pytest.MonkeyPatch.context() as patch,
        operated(patch, tmp_path_factory.mktemp("told"), metrics_address=address),
    ):
        text = scraped(address)
    return dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))


def test_every_query_of_the_dashboard_names_metrics_that_exist(told: dict[str, str]) -> None:
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    queries = list(expressions(dashboard))
    assert len(queries) > 15
    for query in queries:
        assert names_in(query) <= set(told), query


def test_the_dashboard_asks_for_buckets_of_histograms_and_rates_of_counters_only(
    told: dict[str, str],
) -> None:
    for query in expressions(json.loads((DEPLOY / "grafana.json").read_text())):
        for name in re.findall(r"\b(lookalike_[a-z_]+)_bucket", query):
            assert told[name] == "histogram"
        for name in re.findall(r"(?:rate|increase)\(([a-z_]+)\{", query):
            assert told[re.sub(r"_(bucket|sum|count)$", "", name)] in ("counter", "histogram"), name


def test_the_guide_lists_every_metric_of_ours(told: dict[str, str]) -> None:
    ours = {name for name in told if name.startswith("lookalike_") and not name.endswith("_created")}
    assert {name for name in names_in(GUIDE) if name.startswith("lookalike_")} - {"lookalike_server"} == ours


def documents() -> dict[str, Any]:
    return {
        document["kind"]: document
        for document in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    }


def container() -> Any:
    (only,) = documents()["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    return only


def test_the_settings_of_the_manifest_are_settings(tmp_path: Path) -> None:
    file = tmp_path / "lookalike.toml"
    file.write_text(documents()["ConfigMap"]["data"]["lookalike.toml"])
    environ = {entry["name"]: entry["value"] for entry in container()["env"]}
    settings = load_settings(config=file, environ=environ)
    assert settings.address == "0.0.0.0:50051"
    assert str(settings.data) in {mount["mountPath"] for mount in container()["volumeMounts"]}


def test_the_manifest_probes_the_port_it_opens_and_waits_for_the_drain() -> None:
    pod = documents()["StatefulSet"]["spec"]["template"]["spec"]
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    for probe in ("startupProbe", "readinessProbe"):
        assert container()[probe]["grpc"]["port"] == ports["grpc"] == 50051
    assert pod["terminationGracePeriodSeconds"] > Settings().drain_seconds
    assert set(container()["resources"]) == {"requests", "limits"}
    mounted = {mount["name"] for mount in container()["volumeMounts"]}
    claimed = {c["metadata"]["name"] for c in documents()["StatefulSet"]["spec"]["volumeClaimTemplates"]}
    assert mounted == claimed | {volume["name"] for volume in pod["volumes"]}


def test_the_user_of_the_manifest_is_that_of_the_image() -> None:
    user = documents()["StatefulSet"]["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
    assert f"--uid {user}" in (DEPLOY.parent / "Dockerfile").read_text()


def test_the_unit_starts_the_server_with_settings_that_exist_and_waits_for_the_drain() -> None:
    unit = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    text = (DEPLOY / "lookalike.service").read_text()
    unit.read_string(text)
    variables = re.findall(r"^Environment=LOOKALIKE_(\w+)=", text, re.MULTILINE)
    assert {name.lower() for name in variables} <= set(Settings.model_fields)
    assert float(unit["Service"]["TimeoutStopSec"]) > Settings().drain_seconds
    assert "-m lookalike_server --config" in unit["Service"]["ExecStart"]
    assert unit["Service"]["RestartPreventExitStatus"] == "2"
