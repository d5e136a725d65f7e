"""What is wrong about imgflow's processes: variables, Dagster's configuration, sensor, ports."""

# ruff: noqa: ARG001 - all arrangements take the same arguments

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from imgflow.doctor import dagster_checks
from imgflow.orchestration.dagster_storage.instance import prepare_dagster_home
from imgflow.service.up_lock import only_one
from imgflow_tests.ceph import free_port
from imgflow_tests.fetch.servers import ok, serving
from imgflow_tests.misconfigured.case import Case, Fixture, Misconfigurations
from imgflow_tests.pictures import jpeg

WORKSPACE = Path(__file__).resolve().parents[2] / "workspace.yaml"

PROCESSES = Misconfigurations()
wrong = PROCESSES.wrong


def configured(case: Case, **changes: Any) -> None:
    """A `dagster.yaml` as the first start writes it, changed."""
    file = prepare_dagster_home(case.settings) / "dagster.yaml"
    config = {**yaml.safe_load(file.read_text()), **changes}
    file.write_text(yaml.safe_dump({name: value for name, value in config.items() if value}))


@wrong("`imgflow up` was started with other settings", "IMGFLOW_THUMBNAIL_SIZE")
def other_settings(case: Case, fixture: Fixture) -> Iterator[None]:
    fixture("tmp_path")
    ports = {"dagster_port": free_port(), "api_port": free_port()}
    case.values |= ports
    with only_one(case.settings):
        case.values["thumbnail_size"] = 100
        yield


@wrong("a variable is misspelt", "rename it to IMGFLOW_THUMBNAIL_SIZE")
def misspelt(case: Case, fixture: Fixture) -> Iterator[None]:
    folder = fixture("tmp_path")
    (folder / ".env").write_text("IMGFLOW_TUMBNAIL_SIZE=300\n")
    case.environment.chdir(folder)
    yield


@wrong("DAGSTER_HOME is another instance's", "unset it")
def other_home(case: Case, fixture: Fixture) -> Iterator[None]:
    case.environment.setenv("DAGSTER_HOME", str(fixture("tmp_path") / "theirs"))
    yield


@wrong("Dagster's batch size is set too small", "unset it")
def small_batches(case: Case, fixture: Fixture) -> Iterator[None]:
    case.environment.setenv("DAGSTER_EVENT_BATCH_SIZE", "1")
    yield


@wrong("`dagster.yaml` has another event log", "BulkPostgresEventLogStorage")
def other_event_log(case: Case, fixture: Fixture) -> Iterator[None]:
    configured(case, event_log_storage=None)
    yield


@wrong("no run may start", "max_concurrent_runs")
def blocked_queue(case: Case, fixture: Fixture) -> Iterator[None]:
    configured(case, run_queue={"max_concurrent_runs": 0})
    yield


@wrong("runs wait and none starts", "daemon runs")
def waiting_runs(case: Case, fixture: Fixture) -> Iterator[None]:
    project = fixture("project")
    (project.source.location.folder / "a.jpg").write_bytes(jpeg())
    (asked,) = project.tick().run_requests
    job = project.definitions.resolve_job_def(asked.job_name)
    project.instance.create_run_for_job(job, tags=dict(asked.tags))
    case.environment.setattr(dagster_checks, "START_SECONDS", -1.0)
    yield


@wrong("the daemon does not run", "imgflow up")
def no_daemon(case: Case, fixture: Fixture) -> Iterator[None]:
    fixture("instance")
    yield


@wrong("somebody stopped the sensor", "start it in the UI")
def stopped_sensor(case: Case, fixture: Fixture) -> Iterator[None]:
    fixture("project")
    command = [sys.executable, "-m", "dagster", "sensor", "stop", "arrivals", "-w", WORKSPACE]
    subprocess.run(command, check=True, capture_output=True)
    yield


@wrong("uploads are not seen", "daemon.log")
def silent_sensor(case: Case, fixture: Fixture) -> Iterator[None]:
    project = fixture("project")
    project.tick()
    for name in ("stop", "start"):  # so that Dagster knows the sensor
        command = [sys.executable, "-m", "dagster", "sensor", name, "arrivals", "-w", WORKSPACE]
        subprocess.run(command, check=True, capture_output=True)
    with project.catalog.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE sensor_ticks SET due_at = now() - interval '1 minute'")
    with only_one(project.settings):  # as if `imgflow up` ran
        yield


@wrong("a port is taken", "IMGFLOW_API_PORT")
def taken_port(case: Case, fixture: Fixture) -> Iterator[None]:
    with serving(ok(b"")) as server:
        case.values["api_port"] = server.port
        yield


@wrong("others reach the API and no token is set", "IMGFLOW_API_TOKEN")
def no_token(case: Case, fixture: Fixture) -> Iterator[None]:
    case.values["api_host"] = "0.0.0.0"  # noqa: S104 - nothing listens
    yield


@wrong("the public URL shows images to who has no token", "IMGFLOW_OPEN_READING")
def open_proxy(case: Case, fixture: Fixture) -> Iterator[None]:
    with serving(ok(b'{"items": []}', "Content-Type: application/json")) as server:
        case.values["public_url"] = f"http://127.0.0.1:{server.port}"
        yield


@wrong("reading is open to all", "IMGFLOW_OPEN_READING")
def open_reading(case: Case, fixture: Fixture) -> Iterator[None]:
    case.values["open_reading"] = True
    yield


@wrong("the watermark's letters are in no font", "IMGFLOW_WATERMARK")
def no_letters(case: Case, fixture: Fixture) -> Iterator[None]:
    case.values["watermark_text"] = "\ue123"
    yield
