"""Runs that died, ended too early, or belong to others, and what becomes of their images."""

from __future__ import annotations

import threading
from typing import Any

import dagster as dg
import pytest

from imgflow.catalog.postgres import run_locks
from imgflow.orchestration.dagster_storage.event_log import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from imgflow.orchestration.runs import execute, liveness
from imgflow_tests.orchestration.project import PHOTO_ASSETS, Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import jpeg

GREEN = {"a.jpg": "green", "b.jpg": "green"}


@pytest.fixture(autouse=True)
def server_of_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is judged right after the start of the server, which here has just been."""
    monkeypatch.setattr(run_locks, "SETTLE_SECONDS", 0)


def uploaded(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    put(project, "b.jpg", jpeg(seed=1))


def started(project: Project, **values: Any) -> dg.DagsterRun:
    """A run that looks as if it went on."""
    project.instance.add_dynamic_partitions("photos", ["a.jpg", "b.jpg"])
    job = project.definitions.resolve_job_def("process_photos")
    run = project.instance.create_run_for_job(job, **values)
    project.instance.report_dagster_event(
        dg.DagsterEvent("PIPELINE_START", job_name=run.job_name), run_id=run.run_id
    )
    return run


def status(project: Project, run: dg.DagsterRun) -> str:
    found = project.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status.name


RANGE = {ASSET_PARTITION_RANGE_START_TAG: "a.jpg", ASSET_PARTITION_RANGE_END_TAG: "b.jpg"}


def test_a_run_that_failed_between_rows_and_events_is_said_again_without_any_work(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded(project)

    def fails(_context: object, events: list[object]) -> None:
        if events:
            raise ConnectionError("the event log is away")

    with monkeypatch.context() as patched:
        patched.setattr(execute, "report_images", fails)
        (run,) = project.run_requests(project.tick())
    assert not run.success
    assert {image.state for image in project.catalog.page(limit=9)} == {"ready"}
    assert project.statuses("photo/thumbnail") == {"a.jpg": "red", "b.jpg": "red"}
    stored = project.stored()

    (run,) = project.run_requests(project.tick())

    assert run.success
    for asset in ("source", *PHOTO_ASSETS):
        assert project.statuses(f"photo/{asset}") == GREEN
    assert project.newest("photo/thumbnail", "a.jpg").metadata["noop"].value is True
    assert project.stored() == stored
    assert project.tick().run_requests == []


def test_what_was_unchanged_in_a_run_that_died_is_said_again_too(project: Project) -> None:
    uploaded(project)
    project.run_requests(project.tick())
    run = started(project, tags=RANGE)
    ids = [image.id for image in project.catalog.page(limit=9)]
    project.catalog.holds.begin(run.run_id, run.run_id, "photo", ids)

    (again,) = project.run_requests(project.tick())

    assert status(project, run) == "FAILURE"
    assert again.success
    assert project.statuses("photo/metadata") == GREEN


def test_a_run_of_an_operator_that_died_is_marked_failed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded(project)
    project.run_requests(project.tick())
    run = started(project, tags=RANGE)
    project.tick()
    assert status(project, run) == "STARTED", "it has just begun"
    monkeypatch.setattr(liveness, "GRACE_SECONDS", 0)
    with project.catalog.holds.holding(run.run_id):
        project.tick()
        assert status(project, run) == "STARTED", "its process lives"
    project.tick()
    assert status(project, run) == "FAILURE"


def test_the_code_server_is_let_say_by_which_signal_its_process_ended(project: Project) -> None:
    uploaded(project)
    run = started(project, tags=RANGE)
    project.catalog.holds.begin(run.run_id, run.run_id, "photo", [])
    server = threading.Timer(0.5, project.instance.report_run_failed, [run, "killed by SIGKILL"])
    server.start()
    project.tick()
    server.join()
    said = project.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert [entry.dagster_event.message for entry in said] == ["killed by SIGKILL"]


def test_a_run_that_is_about_to_end_is_given_its_time(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded(project)
    run = started(project, tags=RANGE)
    project.catalog.holds.begin(run.run_id, run.run_id, "photo", [])
    project.catalog.holds.end(run.run_id, images=0, size=0)
    with project.catalog.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE run_holds SET began_at = now() - interval '1 hour'")
    project.tick()
    assert status(project, run) == "STARTED"
    monkeypatch.setattr(liveness, "GRACE_SECONDS", 0)
    project.tick()
    assert status(project, run) == "FAILURE"


def test_a_run_that_goes_on_with_assets_of_others_is_left_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "GRACE_SECONDS", 0)
    run = started(
        project,
        tags=RANGE,
        asset_selection=frozenset({dg.AssetKey(["photo", "thumbnail"])}),
    )
    mixed = dg.DagsterRun(
        job_name="__ASSET_JOB",
        tags=RANGE,
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset({dg.AssetKey(["photo", "thumbnail"]), dg.AssetKey("theirs")}),
    )
    theirs = dg.DagsterRun(job_name="theirs", tags=RANGE, status=dg.DagsterRunStatus.STARTED)
    for other in (mixed, theirs):
        project.instance.add_run(other)
    project.tick()
    assert [status(project, one) for one in (run, mixed, theirs)] == [
        "FAILURE",
        "STARTED",
        "STARTED",
    ]


def test_an_operator_who_selects_one_asset_of_an_unreported_image_gets_all_of_it_said(
    project: Project,
) -> None:
    uploaded(project)
    project.run_requests(project.tick())
    ids = [image.id for image in project.catalog.page(limit=9)]
    project.catalog.unreport(ids)
    assert project.materialize(["a.jpg", "b.jpg"], assets=["thumbnail"]).success
    assert not any(image.unreported for image in project.catalog.page(limit=9))
    run_ids = {
        asset: project.instance.fetch_materializations(dg.AssetKey(["photo", asset]), limit=1)
        .records[0]
        .run_id
        for asset in ("source", *PHOTO_ASSETS)
    }
    assert len(set(run_ids.values())) == 1
