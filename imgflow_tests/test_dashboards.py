"""The dashboard and the alerts ask for series that a scrape has, with labels that these have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from imgflow.catalog.postgres.sensing import recorded_tick
from imgflow_tests.api.conftest import client, library
from imgflow_tests.api.library import Library, encoded
from imgflow_tests.dagster_tables import add_runs, add_sensor

__all__ = ["client", "library"]

ROOT = Path(__file__).resolve().parents[1]
DASHBOARD = json.loads((ROOT / "deploy/grafana/imgflow.json").read_text())
GROUPS = yaml.safe_load((ROOT / "deploy/prometheus/imgflow.rules.yml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [target for panel in PANELS for target in panel["targets"]]

# What Prometheus adds to every series.
BY_PROMETHEUS = {"job", "instance"}


def parsed(expression: str) -> promql_parser.Expr:
    """An expression after Grafana has put its variables in."""
    text = expression.replace("$__rate_interval", "5m")
    return promql_parser.parse(re.sub(r"\$(job|instance)\b", ".*", text))


def selectors(expression: str) -> list[Any]:
    """The selectors of an expression, wherever they stand in it."""
    found = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(parsed(expression), pre_visit=visit)
    return found


def grouped(expression: str) -> set[str]:
    """The labels by which an expression groups."""
    return {
        label.strip()
        for labels in re.findall(r"\bby \(([^)]*)\)", expression)
        for label in labels.split(",")
    }


@pytest.fixture(scope="module")
def scraped(client: TestClient, library: Library) -> dict[str, dict[str, set[str]]]:
    """Name of a series to its labels and their values, after each kind of request and a tick."""
    add_sensor(library.engine)
    add_runs(library.engine)
    with recorded_tick(library.engine, library.catalog.source, "arrivals", 1.0):
        pass
    for path in ("/images", f"/image/{encoded('holes/one.csv')}", "/no/such/path"):
        client.get(path)
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


def expressions() -> Iterator[tuple[str, str]]:
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for rule in RULES:
        yield rule["alert"], rule["expr"]


@pytest.mark.parametrize(("name", "expression"), list(expressions()))
def test_every_series_that_is_asked_for_is_in_a_scrape_with_these_labels(
    name: str, expression: str, scraped: dict[str, dict[str, set[str]]]
) -> None:
    asked = selectors(expression)
    assert asked, name
    known: set[str] = set(BY_PROMETHEUS)
    for selector in asked:
        assert selector.name in scraped, f"{name}: no scrape has {selector.name}"
        labels = scraped[selector.name]
        known |= labels.keys()
        for matcher in selector.matchers.matchers:
            if matcher.name in BY_PROMETHEUS:
                continue
            assert matcher.name in labels, f"{name}: {selector.name} has no {matcher.name}"
            pattern = str(matcher.value)
            is_status = matcher.name == "status"  # which statuses there are depends on requests
            assert is_status or any(re.fullmatch(pattern, v) for v in labels[matcher.name])
    assert grouped(expression) <= known, name


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target["legendFormat"])
def test_a_legend_names_labels_that_are_left(target: dict[str, Any]) -> None:
    named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    assert named <= grouped(target["expr"]) | BY_PROMETHEUS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_is_one_that_prometheus_takes_and_tells_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Imgflow[A-Za-z]+", rule["alert"])
    assert re.fullmatch(r"\d+[smh]", rule["for"])
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "description"}
    for text in rule["annotations"].values():
        assert text.endswith(".")
        for label in re.findall(r"\$labels\.(\w+)", text):
            assert label in grouped(rule["expr"])


def test_the_alerts_that_the_docs_name_are_there() -> None:
    docs = (ROOT / "docs" / "observability.md").read_text()
    assert set(re.findall(r"`(Imgflow\w+)`", docs)) == {rule["alert"] for rule in RULES}
    asked = " ".join(rule["expr"] for rule in RULES)
    for metric in ("imgflow_up", "imgflow_backlog_seconds", 'outcome="trouble"', "rejected"):
        assert metric in asked


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= DASHBOARD.keys()
    assert "id" not in DASHBOARD, "Grafana gives it one"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"]))) - {"__rate_interval"}
    assert used <= variables
    for panel in PANELS:
        assert panel["type"] in ("timeseries", "stat")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"].endswith(".")
        references = [target["refId"] for target in panel["targets"]]
        assert references == [chr(ord("A") + index) for index in range(len(references))]


def test_panels_neither_overlap_nor_leave_the_page() -> None:
    def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        return {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }

    for one, other in combinations(DASHBOARD["panels"], 2):
        assert not cells(one) & cells(other), (one["title"], other["title"])


def test_every_metric_of_the_catalogue_is_on_the_dashboard(
    scraped: dict[str, dict[str, set[str]]],
) -> None:
    shown = {selector.name for target in TARGETS for selector in selectors(target["expr"])}
    bare = {re.sub(r"_(bucket|count|sum)$", "", name) for name in scraped}
    ours = {name for name in bare if name.startswith("imgflow_")}
    assert ours - {re.sub(r"_bucket$", "", name) for name in shown} == {"imgflow_copied_total"}
