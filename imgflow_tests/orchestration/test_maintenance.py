"""The nightly reconciliation: whatever differs is counted and repaired."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import dagster as dg

from imgflow.catalog.postgres.depth_arrays import DepthArrays
from imgflow.store.naming import output_name
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import depth_csv, jpeg


def reconcile(project: Project) -> dict[str, int]:
    """Run the job as its schedule does, and return what it found."""
    job = project.definitions.resolve_job_def("reconcile")
    result = job.execute_in_process(instance=project.instance)
    assert result.success
    (event,) = (event for event in result.all_events if event.event_type_value == "STEP_OUTPUT")
    metadata = event.step_output_data.metadata
    return {name: int(str(value.value)) for name, value in metadata.items() if value.value}


def prepared(project: Project) -> Project:
    put(project, "a.jpg", jpeg())
    put(project, "b.jpg", jpeg(seed=1))
    put(project, "hole.csv", depth_csv())
    project.run_requests(project.tick())
    return project


def test_where_all_agree_nothing_is_found_and_nothing_changes(project: Project) -> None:
    prepared(project)
    rows, stored = project.rows(), project.stored()
    assert reconcile(project) == {"listed": 3}
    assert (project.rows(), project.stored()) == (rows, stored)


def test_an_output_that_is_gone_is_made_again_and_only_that(project: Project) -> None:
    prepared(project)
    before = project.stored()
    (lost,) = (name for name in before if name.startswith("thumbnail/") and "/a.jpg/" in name)
    body = project.outputs.get(lost)
    project.outputs.delete([lost])

    assert reconcile(project) == {"listed": 3, "missing outputs": 1}
    project.run_requests(project.tick())

    after = project.stored()
    assert project.outputs.get(lost) == body
    assert {name: after[name] for name in before if name != lost} == {
        name: before[name] for name in before if name != lost
    }
    assert reconcile(project) == {"listed": 3}


def test_an_output_that_no_row_names_is_deleted_once_it_is_old(project: Project) -> None:
    prepared(project)
    old, new = (
        output_name("thumbnail", project.catalog.source, "a.jpg", text, ".jpg")
        for text in ("old", "new")
    )
    project.outputs.put(old, b"x", "image/jpeg")
    project.outputs.put(new, b"x", "image/jpeg")
    long_ago = time.time() - 2 * 3_600
    os.utime(project.outputs.location.folder / old, (long_ago, long_ago))

    assert reconcile(project) == {"listed": 3, "orphaned outputs": 1}

    assert project.outputs.get(old) is None
    assert project.outputs.get(new) == b"x"


def test_outputs_of_an_older_upload_are_collected(project: Project) -> None:
    prepared(project)
    old = set(project.stored())
    put(project, "a.jpg", jpeg(seed=5))
    project.run_requests(project.tick())
    long_ago = time.time() - 2 * 3_600
    for name in project.stored():
        os.utime(project.outputs.location.folder / name, (long_ago, long_ago))

    assert reconcile(project) == {"listed": 3, "orphaned outputs": 2}

    assert len(old & set(project.stored())) == 3
    assert len(project.stored()) == 5


def test_partitions_follow_the_images(project: Project) -> None:
    prepared(project)
    project.instance.delete_dynamic_partition("photos", "a.jpg")
    project.instance.add_dynamic_partitions("photos", ["never.jpg"])
    assert reconcile(project) == {
        "listed": 3,
        "missing partitions": 1,
        "orphaned partitions": 1,
    }
    assert set(project.instance.get_dynamic_partitions("photos")) == {"a.jpg", "b.jpg"}


def test_nothing_is_taken_from_a_run_that_is_going_on(project: Project) -> None:
    prepared(project)
    put(project, "c.jpg", jpeg(seed=3))
    (request,) = project.tick().run_requests or ()
    job = project.definitions.resolve_job_def(str(request.job_name))
    run = project.instance.create_run_for_job(job, tags=dict(request.tags))
    project.instance.add_dynamic_partitions("photos", ["never.jpg"])
    assert reconcile(project) == {"listed": 4}
    project.instance.report_run_canceled(run)
    project.end_pauses()
    assert "orphaned partitions" in reconcile(project)


def test_the_backfill_makes_what_a_changed_recipe_touched_pending(
    make_project: Callable[..., Project],
) -> None:
    prepared(make_project())
    project = make_project(depth_width=64)
    # What Dagster takes an asset for stale by: the code version now, and that of the newest event.
    (spec,) = [
        spec
        for spec in project.definitions.resolve_all_asset_specs()
        if spec.key == dg.AssetKey(["depth", "resized"])
    ]
    made = project.newest("depth/resized", "hole.csv").tags
    assert made["dagster/code_version"] != spec.code_version
    job = project.definitions.resolve_job_def("backfill_stale")
    assert job.execute_in_process(instance=project.instance).success
    (result,) = project.run_requests(project.tick())
    assert result.success
    image = project.catalog.by_keys(["hole.csv"])["hole.csv"]
    assert image.outputs["resized"]["width"] == 64
    made = project.newest("depth/resized", "hole.csv").tags
    assert made["dagster/code_version"] == spec.code_version
    assert DepthArrays(project.catalog.engine).read(image.id).pixels.shape[1] == 64


def test_the_schedules_ask_for_their_jobs(project: Project) -> None:
    for name in ("nightly_backfill_stale", "nightly_reconcile", "nightly_retention"):
        schedule = project.definitions.resolve_schedule_def(name)
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
