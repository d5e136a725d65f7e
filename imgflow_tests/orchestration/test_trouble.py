"""Trouble outside is said in words and retried, and never turns into a verdict about an image."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from imgflow.settings.variables import Settings
from imgflow.status import read_status
from imgflow.store.config import StoreConfig
from imgflow_tests.ceph import free_port
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import depth_csv, jpeg, png


def failure_text(run: dg.ExecuteInProcessResult) -> str:
    (event,) = run.get_step_failure_events()
    error = event.step_failure_data.error
    assert error is not None
    return str(error)


def test_a_source_that_cannot_be_listed_is_a_skip_with_a_reason_and_no_empty_bucket(
    project: Project,
) -> None:
    put(project, "a.jpg", jpeg())
    project.run_requests(project.tick())
    folder = project.source.location.folder
    folder.rename(folder.with_name("away"))

    result = project.tick('{"resume_after": "kept"}')

    assert result.run_requests is None or result.run_requests == []
    assert str(folder) in str(result.skip_reason)
    assert "IMGFLOW_SOURCE_URL" in str(result.skip_reason)
    assert result.cursor == '{"resume_after": "kept"}', "the next tick lists the same part again"
    assert project.catalog.by_keys(["a.jpg"])["a.jpg"].state == "ready"


def test_an_unreachable_bucket_is_a_skip_that_names_it(
    make_settings: Callable[..., Settings],
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "wont-tell",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    project = Project(make_settings(source_url="s3://uploads/in"), instance)
    result = project.tick()
    assert "s3://uploads/in/" in str(result.skip_reason)
    assert "wont-tell" not in str(result.skip_reason)


def test_a_bucket_that_does_not_exist_is_a_skip_with_the_fix(
    s3: Any, make_settings: Callable[..., Settings], instance: dg.DagsterInstance
) -> None:
    assert s3
    project = Project(make_settings(source_url="s3://not-there/in"), instance)
    reason = str(project.tick().skip_reason)
    assert "NoSuchBucket" in reason
    assert "create it" in reason


def test_images_whose_outputs_cannot_be_written_stay_pending_and_are_asked_for_again(
    project: Project,
) -> None:
    for number in range(3):
        put(project, f"{number}.jpg", jpeg(seed=number))
    put(project, "bad.jpg", b"no picture")
    obstacle = project.outputs.location.folder / "grayscale"
    obstacle.write_text("a file where a folder should be")

    (run,) = project.run_requests(project.tick())

    assert not run.success
    assert "Delayed by an external error" in failure_text(run)
    images = project.catalog.by_keys(["0.jpg", "1.jpg", "2.jpg", "bad.jpg"])
    assert {key: image.state for key, image in images.items()} == {
        "0.jpg": "pending",
        "1.jpg": "pending",
        "2.jpg": "pending",
        "bad.jpg": "rejected",
    }
    assert "could not be written" in str(images["0.jpg"].reason)
    assert project.tick().run_requests == [], "there is a pause before the next attempt"

    obstacle.unlink()
    project.end_pauses()
    (run,) = project.run_requests(project.tick())
    assert run.success
    assert project.statuses("photo/thumbnail") == {
        "0.jpg": "green",
        "1.jpg": "green",
        "2.jpg": "green",
        "bad.jpg": "red",
    }


def test_the_pause_between_attempts_doubles(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    outputs = project.outputs.location.folder
    shutil.rmtree(outputs)
    outputs.write_text("a file where a folder should be")
    pauses = []
    for _ in range(4):
        project.end_pauses()
        project.run_requests(project.tick())
        with project.catalog.engine.connect() as connection:
            pauses.append(
                connection.exec_driver_sql(
                    "SELECT extract(epoch FROM not_before - now()) FROM images"
                ).scalar()
            )
    assert [round(float(pause)) for pause in pauses] == [2, 4, 8, 16]


def test_ingest_counts_trouble_as_failed(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    outputs = project.outputs.location.folder
    shutil.rmtree(outputs)
    outputs.write_text("a file where a folder should be")
    report = project.ingest()
    assert (report.listed, report.processed, report.rejected, report.failed) == (1, 0, 0, 1)
    assert "IMGFLOW_OUTPUT_URL" in report.reasons["a.jpg"]


def test_ingest_counts_what_still_waits_since_it_failed(project: Project) -> None:
    for number in range(3):
        put(project, f"{number}.jpg", jpeg(seed=number))
    obstacle = project.outputs.location.folder / "grayscale"
    obstacle.write_text("a file where a folder should be")
    project.ingest()
    with project.catalog.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE images SET not_before = now() + interval '1 hour'")
    put(project, "bad.jpg", b"no picture")

    report = project.ingest()

    assert (report.listed, report.unchanged, report.rejected, report.failed) == (4, 0, 1, 3)
    assert report.retry_seconds is not None
    assert 3_000 < report.retry_seconds <= 3_600
    assert set(report.reasons) == {"0.jpg", "1.jpg", "2.jpg", "bad.jpg"}
    status = read_status(project.catalog)
    assert (status.failed, status.as_json()["failed"]) == (3, 3)
    assert "3 failed and wait (trouble), such as '2.jpg'" in status.line()
    obstacle.unlink()
    project.end_pauses()
    report = project.ingest()
    assert (report.processed, report.unchanged, report.failed) == (3, 1, 0)
    assert set(report.as_json()) == {
        *("listed", "processed", "unchanged", "rejected", "failed", "seconds")
    }
    status = read_status(project.catalog)
    assert (status.failed, status.retry_seconds) == (0, None)


def test_images_whose_runs_die_again_and_again_count_as_failed(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    project.tick()  # and the process dies before it is launched
    assert read_status(project.catalog).failed == 0, "it may be on its way"
    project.end_pauses()
    project.tick()
    with project.catalog.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE images SET not_before = now() + interval '1 hour'")
    (kind,) = read_status(project.catalog).failing
    assert (kind.code, kind.count, kind.key) == ("interrupted", 1, "a.jpg")
    report = project.ingest()
    assert (report.failed, report.unchanged) == (1, 0)


def test_an_image_overwritten_between_listing_and_reading_is_processed_as_it_is_now(
    project: Project,
) -> None:
    put(project, "a.jpg", jpeg(64, 48))
    put(project, "b.jpg", jpeg(64, 48, seed=1))
    result = project.tick()
    put(project, "a.jpg", png(90, 30))
    (run,) = project.run_requests(result)
    assert run.success
    image = project.catalog.by_keys(["a.jpg"])["a.jpg"]
    assert (image.state, image.width, image.size) == ("ready", 90, len(png(90, 30)))
    assert project.tick().run_requests == []


def test_an_image_deleted_between_listing_and_reading_is_not_waited_for(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    put(project, "b.jpg", jpeg(seed=1))
    project.run_requests(project.tick())
    put(project, "b.jpg", jpeg(seed=2))
    put(project, "new.jpg", jpeg(seed=3))
    result = project.tick()
    for key in ("b.jpg", "new.jpg"):
        (project.source.location.folder / key).unlink()

    (run,) = project.run_requests(result)

    assert "there is no object 'new.jpg'" in failure_text(run)
    images = project.catalog.by_keys(["a.jpg", "b.jpg", "new.jpg"])
    assert {key: image.state for key, image in images.items()} == {
        "a.jpg": "ready",
        "b.jpg": "ready",
        "new.jpg": "deleted",
    }
    assert project.tick().run_requests == []
    put(project, "new.jpg", jpeg(seed=3))
    project.run_requests(project.tick())
    assert project.catalog.by_keys(["new.jpg"])["new.jpg"].state == "ready"


def test_a_run_that_dies_leaves_its_images_to_the_next_tick(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    first = project.tick()
    assert len(first.run_requests or ()) == 1  # and the process dies before it is launched
    project.end_pauses()
    second = project.tick()
    (run,) = project.run_requests(second)
    assert run.success


def test_nothing_is_asked_for_twice_while_a_run_has_it_in_hand(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    (request,) = project.tick().run_requests or ()
    job = project.definitions.resolve_job_def(str(request.job_name))
    run = project.instance.create_run_for_job(job, tags=dict(request.tags))
    project.end_pauses()
    assert project.tick().run_requests == []
    project.instance.report_run_failed(run)
    assert len(project.tick().run_requests or ()) == 1


def test_a_replaced_depth_image_leaves_no_chunks_of_the_old_one(project: Project) -> None:
    put(project, "hole.csv", depth_csv(40))
    project.run_requests(project.tick())
    put(project, "hole.csv", depth_csv(30, seed=1))
    project.run_requests(project.tick())
    with project.catalog.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT sum(row_count) FROM depth_chunks").scalar()
    assert rows == 30


def test_source_and_outputs_that_are_the_same_are_refused(tmp_path: Path) -> None:
    from imgflow.errors import SettingsError

    url = tmp_path.as_uri()
    with pytest.raises(SettingsError, match="IMGFLOW_OUTPUT_URL"):
        StoreConfig(url, f"{url}/").locations()


def test_a_run_whose_process_was_killed_is_marked_failed_and_its_images_asked_for_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(project, "a.jpg", jpeg())
    (request,) = project.tick().run_requests or ()
    job = project.definitions.resolve_job_def(str(request.job_name))
    run = project.instance.create_run_for_job(job, tags=dict(request.tags))
    project.instance.report_dagster_event(
        dg.DagsterEvent("PIPELINE_START", job_name=run.job_name), run_id=run.run_id
    )
    project.end_pauses()
    assert project.tick().run_requests == [], "it has just started"

    with project.catalog.holds.holding(request.tags["imgflow/batch"]):
        monkeypatch.setattr("imgflow.orchestration.runs.liveness.GRACE_SECONDS", 0)
        assert project.tick().run_requests == [], "its process lives"

    assert len(project.tick().run_requests or ()) == 1
    record = project.instance.get_run_by_id(run.run_id)
    assert record is not None
    assert record.status == dg.DagsterRunStatus.FAILURE


def test_ingest_finishes_what_a_killed_run_left_behind(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    project.tick()  # asks for a run, and the process dies before it is launched
    with project.catalog.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE images SET not_before = now() + interval '2 seconds'")
    report = project.ingest()
    assert (report.processed, report.failed) == (1, 0)
