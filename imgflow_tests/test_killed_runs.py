"""Runs whose process is killed, with `imgflow up` and its real processes around them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from imgflow_tests.pictures import jpeg
from imgflow_tests.receivers import Webhook, webhook
from imgflow_tests.running import Running, ready, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

IMAGES = 120

LAUNCH = """
mutation($run: ExecutionParams!) {
  launchRun(executionParams: $run) { __typename ... on LaunchRunSuccess { run { id } } }
}
"""
RUNS = """
query { runsOrError { ... on Runs { results { id status parentRunId tags { key value } } } } }
"""


@pytest.fixture(scope="module")
def hook() -> Iterator[Webhook]:
    with webhook() as made:
        yield made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, hook: Webhook) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("up")
    alerts = {"IMGFLOW_ALERT_URLS": hook.url, "IMGFLOW_ALERT_MINUTES": "0"}
    with ready(folder, IMGFLOW_WORKERS="1", **alerts) as started:
        yield started


def runs(running: Running) -> dict[str, dict[str, Any]]:
    """All runs by id, the newest first."""
    found = running.graphql(RUNS)["runsOrError"]["results"]
    return {run["id"]: run for run in found}


def made_by(running: Running, run_id: str) -> set[str]:
    images = running.images(limit=str(IMAGES), state="ready")
    return {image["key"] for image in images if image["run_id"] == run_id}


def worker_of(run_id: str) -> psutil.Process:
    """The process of a run: what captures its output names it."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if command[:1] == ["tail"] and run_id in " ".join(command):
            parent = process.parent()
            assert parent is not None
            return parent
    raise AssertionError(f"no process of run {run_id}")


def test_a_run_of_the_sensor_that_is_killed_fails_at_once_and_its_images_are_asked_for_again(
    running: Running, hook: Webhook
) -> None:
    picture = jpeg(2_000, 1_500)
    for number in range(IMAGES):
        # Behind its end a JPEG may have what it likes, so these are different files.
        (running.home / "source" / f"{number:03}.jpg").write_bytes(picture + bytes([number]))
    killed = wait_until(lambda: next(iter(runs(running)), None))
    wait_until(lambda: made_by(running, killed))
    worker_of(killed).kill()
    wait_until(lambda: runs(running)[killed]["status"] == "FAILURE", 30)
    before = made_by(running, killed)
    assert 0 < len(before) < IMAGES
    wait_until(lambda: len(running.images(limit=str(IMAGES), state="ready")) == IMAGES, 120)
    assert made_by(running, killed) == before, "what was done is not done again"
    found = runs(running)
    assert all(run["parentRunId"] is None for run in found.values()), "the sensor asks, no retry"
    (message,) = wait_until(lambda: hook.messages, 60)
    assert message["title"] == "imgflow: a run failed"
    assert "process_photos, asked for by the sensor arrivals" in message["message"]
    assert "SIGKILL" in message["message"]
    assert f"/runs/{killed}" in message["message"]


def test_a_forced_run_of_a_person_that_is_killed_is_resumed_without_forcing_twice(
    running: Running, hook: Webhook
) -> None:
    selector = {
        "repositoryLocationName": "imgflow",
        "repositoryName": "__repository__",
        "pipelineName": "process_photos",
    }
    tags = {
        "dagster/asset_partition_range_start": "000.jpg",
        "dagster/asset_partition_range_end": f"{IMAGES - 1:03}.jpg",
    }
    launched = running.graphql(
        LAUNCH,
        run={
            "selector": selector,
            "mode": "default",
            "runConfigData": {"ops": {"photo_outputs": {"config": {"force": True}}}},
            "executionMetadata": {
                "tags": [{"key": name, "value": value} for name, value in tags.items()]
            },
        },
    )["launchRun"]
    killed = launched["run"]["id"]
    wait_until(lambda: made_by(running, killed))
    worker_of(killed).kill()
    wait_until(lambda: runs(running)[killed]["status"] == "FAILURE", 30)
    before = made_by(running, killed)
    assert 0 < len(before) < IMAGES

    def resumed() -> Any:
        return [run for run in runs(running).values() if run["parentRunId"] == killed]

    wait_until(lambda: [run["status"] for run in resumed()] == ["SUCCESS"], 120)
    (after,) = resumed()
    assert made_by(running, killed) == before, "what was forced is not forced again"
    assert len(made_by(running, after["id"])) == IMAGES - len(before)
    assert len(hook.messages) == 1, "nobody is told of a run that is retried"
