"""Whoever reaches Dagster launches runs that read, write and load what lies somewhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imgflow_tests.pictures import jpeg
from imgflow_tests.running import Running, ready

LAUNCH = """
mutation launch($job: String!, $config: RunConfigData!, $tags: [ExecutionTag!]!) {
  launchRun(executionParams: {
    mode: "default", runConfigData: $config, executionMetadata: {tags: $tags}, selector: {
      jobName: $job, repositoryName: "__repository__", repositoryLocationName: "imgflow"
    }
  }) {
    __typename
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
RUNS = "query { runsOrError { ... on Runs { results { runId } } } }"
JOBS = (
    "process_photos",
    "process_depth_images",
    "reconcile",
    "retention",
    "backfill_stale",
    "audit",
)
ADD = """
mutation { addDynamicPartition(partitionsDefName: "photos", partitionKey: "secret.jpg",
  repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "imgflow"}
) { __typename } }
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with ready(tmp_path_factory.mktemp("elsewhere")) as started:
        started.graphql(ADD)
        yield started


def elsewhere(folder: Path) -> dict[str, dict[str, Any]]:
    """What says where things lie, by the name of a resource."""
    stores = {"source_url": f"{folder.as_uri()}/private", "output_url": f"{folder.as_uri()}/taken"}
    return {
        **{f"stores.{name}": {"stores": {"config": {name: url}}} for name, url in stores.items()},
        "stores": {"stores": {"config": stores}},
        "stores.home": {"stores": {"config": {"home": ""}}},
        "catalog": {"catalog": {"config": {"database_url": "postgresql://127.0.0.1:9/x"}}},
        "queue": {"queue": {"config": {"url": "http://127.0.0.1:9/queue"}}},
        "io_manager": {"io_manager": {"config": {"base_dir": f"{folder}/taken"}}},
    }


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("name", elsewhere(Path("/")))
def test_no_run_says_where_things_lie(
    running: Running, tmp_path: Path, name: str, job: str
) -> None:
    private, taken = tmp_path / "private", tmp_path / "taken"
    private.mkdir()
    taken.mkdir()
    (private / "secret.jpg").write_bytes(jpeg())
    config = {"resources": elsewhere(tmp_path)[name]}
    tags = [{"key": "dagster/partition", "value": "secret.jpg"}] if "process" in job else []
    answer = running.graphql(LAUNCH, job=job, config=json.dumps(config), tags=tags)["launchRun"]
    assert answer["__typename"] == "RunConfigValidationInvalid", answer
    (error, *_) = answer["errors"]
    assert f"root:resources:{name.partition('.')[0]}" in error["message"]
    assert running.graphql(RUNS)["runsOrError"]["results"] == []
    assert list(taken.iterdir()) == []


def test_a_run_still_says_how_many_workers_it_has(running: Running) -> None:
    config = {"resources": {"workers": {"config": {"count": 1}}}}
    answer = running.graphql(LAUNCH, job="retention", config=json.dumps(config), tags=[])
    assert answer["launchRun"]["__typename"] == "LaunchRunSuccess"
