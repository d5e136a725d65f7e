"""The files of `deploy/kubernetes`, and the pods that come of them and of the Helm chart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from imgflow_tests.deploy import chart

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
VALUES = FOLDER / "values.yaml"

Json = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """The pods of one Deployment or Job."""

    name: str
    manifest: Json
    is_of_chart: bool

    @property
    def spec(self) -> Json:
        found: Json = self.manifest["spec"]["template"]["spec"]
        return found

    @property
    def container(self) -> Json:
        (found,) = self.spec["containers"]
        return dict(found)

    def containers(self) -> list[Json]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def documents(*files: str) -> list[Json]:
    """The manifests of these files, or of all but the chart's values."""
    names = files or sorted(file.name for file in FOLDER.glob("*.yaml") if file != VALUES)
    return [found for name in names for found in yaml.safe_load_all((FOLDER / name).read_text())]


def values() -> Json:
    found: Json = yaml.safe_load(VALUES.read_text())
    return found


def settings() -> dict[str, str]:
    """The variables of the ConfigMap."""
    (found,) = documents("settings.yaml")
    return dict(found["data"])


def pods() -> list[Pod]:
    ours = [
        Pod(one["metadata"]["name"], one, False)
        for one in documents()
        if one["kind"] in ("Deployment", "Job")
    ]
    theirs = [Pod(one["metadata"]["name"], one, True) for one in chart.deployments(values())]
    return ours + theirs


def literals(container: Json) -> Iterator[tuple[str, str]]:
    """Variables whose value stands in the file."""
    for one in container.get("env", []):
        if "value" in one:
            yield one["name"], one["value"]


def sources(container: Json) -> set[str]:
    """Names of the ConfigMaps and Secrets whose variables a container has."""
    return {
        reference["name"]
        for source in container.get("envFrom", [])
        for reference in source.values()
    }
