"""Which events and runs the retention leaves, and why each stays."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from imgflow_tests.orchestration.project import PHOTO_ASSETS, Project
from imgflow_tests.orchestration.retained import age, clean, events, partitions_of
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.orchestration.ui_state import ui_state
from imgflow_tests.pictures import jpeg


def test_an_image_keeps_one_materialisation_of_each_asset(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    put(project, "b.jpg", jpeg(seed=1))
    project.run_requests(project.tick())
    for _ in range(3):
        project.materialize(["a.jpg", "b.jpg"])
    clean(project)
    left = events(project, "ASSET_MATERIALIZATION")
    for name in (*PHOTO_ASSETS, "source"):
        assert partitions_of(left, f"photo/{name}") == ["a.jpg", "b.jpg"]


def test_planned_events_of_red_partitions_and_the_newest_of_an_asset_stay(
    project: Project,
) -> None:
    put(project, "a.jpg", jpeg())
    put(project, "bad.jpg", b"bad")
    put(project, "c.jpg", jpeg(seed=2))
    project.run_requests(project.tick())
    project.materialize(["c.jpg"])
    clean(project)
    left = events(project, "ASSET_MATERIALIZATION_PLANNED")
    for name in PHOTO_ASSETS:
        assert partitions_of(left, f"photo/{name}") == ["bad.jpg", "c.jpg"]


def test_an_older_input_stays_as_long_as_something_points_to_it(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    project.run_requests(project.tick())
    project.materialize(["a.jpg"], assets=["grayscale"])
    project.materialize(["a.jpg"], assets=["grayscale"])
    before = ui_state(project)
    assert before["staleness"]["photo/metadata", "a.jpg"] == ("FRESH", [])

    assert clean(project).materialisations == 1, "of three, the first and the last are compared"
    assert ui_state(project) == before

    project.materialize(["a.jpg"])
    clean(project)
    left = events(project, "ASSET_MATERIALIZATION")
    assert partitions_of(left, "photo/grayscale") == ["a.jpg"]


def test_the_log_of_a_run_that_explains_a_red_partition_stays_whole(project: Project) -> None:
    put(project, "bad.jpg", b"bad")
    (run,) = project.run_requests(project.tick())
    before = [row for row in events(project) if row[1] == run.run_id]
    clean(project)
    assert [row for row in events(project) if row[1] == run.run_id] == before


def test_a_run_page_keeps_its_steps_with_their_times(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    (run,) = project.run_requests(project.tick())

    def steps() -> list[Any]:
        found = project.instance.get_run_step_stats(run.run_id)
        return [(step.step_key, step.status, step.start_time, step.end_time) for step in found]

    timed = steps()
    before = project.instance.get_run_stats(run.run_id)
    freed = clean(project)
    assert freed.log_lines > 5
    assert steps() == timed != []
    assert project.instance.get_run_stats(run.run_id) == before


def test_runs_without_an_event_of_an_asset_go_whole(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    project.run_requests(project.tick())
    project.materialize(["a.jpg"])
    newest = project.materialize(["a.jpg"])
    for name in ("reconcile", "backfill_stale"):
        job = project.definitions.resolve_job_def(name)
        assert job.execute_in_process(instance=project.instance).success
    first = project.runs()[-1].run_id

    freed = clean(project)

    assert freed.runs == 3
    assert {run.run_id for run in project.runs()} == {first, newest.run_id}, "first: the source"
    assert {row[1] for row in events(project)} == {first, newest.run_id}


def test_what_was_superseded_lately_stays(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    project.run_requests(project.tick())
    age(project, days=40)
    project.materialize(["a.jpg"])
    assert clean(project, age=timedelta(days=30)).materialisations == 0
    age(project, days=40)
    assert clean(project, age=timedelta(days=30)).materialisations == len(PHOTO_ASSETS)


def test_a_run_that_waits_shows_its_partitions_as_waiting(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    project.run_requests(project.tick())
    put(project, "b.jpg", jpeg(seed=3))
    (request,) = project.tick().run_requests or ()
    job = project.definitions.resolve_job_def(str(request.job_name))
    project.instance.create_run_for_job(job, tags=dict(request.tags))
    before = ui_state(project)
    assert before["statuses"]["photo/thumbnail"]["b.jpg"] == "IN_PROGRESS"
    clean(project)
    assert ui_state(project) == before


def test_a_canceled_attempt_does_not_bring_an_older_failure_back(project: Project) -> None:
    put(project, "a.jpg", b"bad")
    (request,) = project.tick().run_requests or ()
    job = project.definitions.resolve_job_def(str(request.job_name))
    project.materialize(["a.jpg"])
    run = project.instance.create_run_for_job(job, tags=dict(request.tags))
    project.instance.report_run_canceled(run)
    before = ui_state(project)
    assert before["statuses"]["photo/thumbnail"]["a.jpg"] == "none"
    clean(project, page_events=1)
    assert ui_state(project) == before
