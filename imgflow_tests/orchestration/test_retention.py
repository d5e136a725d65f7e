"""The retention: the event log stays bounded, and the UI says what it said before."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from imgflow.orchestration.dagster_storage import stale_events
from imgflow.orchestration.runs import execute
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.retained import NOTHING, age, clean, events
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.orchestration.ui_state import ui_state
from imgflow_tests.pictures import depth_csv, jpeg


@pytest.fixture
def eventful(project: Project) -> Project:
    """Green, red, red after green, green after red, forced, partly rerun, and deleted images."""
    for number in range(4):
        put(project, f"{number}.jpg", jpeg(seed=number))
    put(project, "broken.jpg", b"no picture")
    put(project, "fixed.jpg", b"not yet")
    put(project, "hole.csv", depth_csv())
    project.run_requests(project.tick())
    put(project, "fixed.jpg", jpeg(seed=10))
    put(project, "3.jpg", b"broken later")
    project.run_requests(project.tick())
    project.materialize(["0.jpg"])
    project.materialize(["0.jpg", "1.jpg"], force=True)
    project.materialize(["2.jpg"], assets=["grayscale"])
    project.materialize(["1.jpg"], assets=["thumbnail"], force=True)
    project.materialize(["hole.csv"])
    put(project, "2.jpg", jpeg(seed=20))
    project.run_requests(project.tick())
    project.materialize(["2.jpg"])
    project.instance.delete_dynamic_partition("photos", "1.jpg")
    return project


def test_every_status_stays_as_it_was(eventful: Project) -> None:
    before = ui_state(eventful)
    thumbnails = before["statuses"]["photo/thumbnail"]
    assert {key: thumbnails[key] for key in ("0.jpg", "3.jpg", "broken.jpg", "fixed.jpg")} == {
        "0.jpg": "green",
        "3.jpg": "red",
        "broken.jpg": "red",
        "fixed.jpg": "green",
    }
    assert before["reasons"]["photo/thumbnail", "broken.jpg"]
    freed = clean(eventful)
    assert freed.materialisations > 10
    assert freed.planned_events > 10
    assert ui_state(eventful) == before


def test_what_was_made_is_known_and_not_made_again(eventful: Project) -> None:
    eventful.instance.add_dynamic_partitions("photos", ["1.jpg"])
    clean(eventful)
    runs = len(eventful.runs())
    report = eventful.ingest()
    assert (report.processed, report.failed) == (0, 0)
    assert report.unchanged > 0
    assert len(eventful.runs()) == runs


def test_what_is_younger_than_the_setting_stays(eventful: Project) -> None:
    rows = events(eventful)
    assert clean(eventful, age=timedelta(hours=1)) == NOTHING
    assert events(eventful) == rows


def test_a_second_retention_finds_nothing(eventful: Project) -> None:
    clean(eventful)
    rows = events(eventful)
    assert clean(eventful) == NOTHING
    assert events(eventful) == rows


@pytest.mark.parametrize("page_events", [1, 7])
def test_small_pages_delete_the_same(
    eventful: Project, monkeypatch: pytest.MonkeyPatch, page_events: int
) -> None:
    sizes = []
    delete = stale_events.EventLog.delete
    monkeypatch.setattr(
        stale_events.EventLog,
        "delete",
        lambda log, ids: [sizes.append(len(ids)), delete(log, ids)][1],  # type: ignore[func-returns-value]
    )
    before = ui_state(eventful)
    clean(eventful, page_events=page_events)
    assert ui_state(eventful) == before
    assert clean(eventful) == NOTHING
    # A page of materialisations ends with a partition, so it may be a little longer.
    assert max(sizes) <= page_events + 7


def test_it_may_stop_anywhere_and_the_next_goes_on(
    eventful: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ui_state(eventful)
    delete = stale_events.EventLog.delete
    calls_left = 0

    def stop(log: stale_events.EventLog, ids: Sequence[int]) -> list[int]:
        nonlocal calls_left
        if ids:
            calls_left -= 1
        if calls_left < 0:
            raise KeyboardInterrupt
        return delete(log, ids)

    monkeypatch.setattr(stale_events.EventLog, "delete", stop)
    stops = 0
    while True:
        calls_left = 3 * 2**stops
        try:
            clean(eventful, page_events=10)
        except KeyboardInterrupt:
            stops += 1
            assert ui_state(eventful) == before
        else:
            break
    assert stops >= 2
    assert ui_state(eventful) == before


def test_a_run_that_is_going_on_keeps_its_events_and_ends_well(
    eventful: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[Any], list[Any]]] = []
    report = execute.report_images

    def clean_in_between(context: dg.AssetExecutionContext, images: Any) -> None:
        def own() -> list[Any]:
            return [row for row in events(eventful) if row[1] == context.run.run_id]

        rows = own()
        clean(eventful, page_events=5)
        seen.append((rows, own()))
        report(context, images)

    monkeypatch.setattr(execute, "report_images", clean_in_between)
    put(eventful, "new.jpg", jpeg(seed=77))
    put(eventful, "newer.jpg", b"bad")
    (run,) = eventful.run_requests(eventful.tick())
    assert seen
    for before, after in seen:
        assert before == after != []
    assert eventful.newest("photo/thumbnail", "new.jpg")
    assert not run.success
    assert eventful.statuses("photo/thumbnail")["newer.jpg"] == "red"
    assert eventful.statuses("photo/thumbnail")["new.jpg"] == "green"


def test_tags_of_deleted_events_go_with_them(eventful: Project) -> None:
    clean(eventful)
    with eventful.catalog.engine.connect() as connection:
        orphans = connection.execute(
            sa.text(
                "SELECT count(*) FROM asset_event_tags"
                " WHERE event_id NOT IN (SELECT id FROM event_logs)"
            )
        ).scalar()
    assert orphans == 0


def test_the_job_says_what_it_freed(eventful: Project) -> None:
    age(eventful, days=31)
    before = ui_state(eventful)
    rows = len(events(eventful))
    job = eventful.definitions.resolve_job_def("retention")
    result = job.execute_in_process(instance=eventful.instance)
    assert result.success
    assert ui_state(eventful) == before
    (event,) = (event for event in result.all_events if event.event_type_value == "STEP_OUTPUT")
    freed = {name: value.value for name, value in event.step_output_data.metadata.items()}
    own = sum(row[1] == result.run_id for row in events(eventful))
    kinds = ("materialisations", "planned events", "evaluations", "log lines")
    deleted = sum(freed[kind] for kind in kinds)
    assert deleted == rows - (len(events(eventful)) - own)
    assert freed["bytes"] > 500 * deleted


def test_assets_and_runs_of_others_are_left_alone(eventful: Project) -> None:
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["x"]))
    def theirs() -> None: ...

    @dg.op
    def work() -> None: ...

    @dg.job
    def other() -> None:
        work()

    @dg.job
    def reconcile() -> None:  # a name that is ours, too
        work()

    for _ in range(2):
        dg.materialize([theirs], partition_key="x", instance=eventful.instance)
    done = [job.execute_in_process(instance=eventful.instance) for job in (other, reconcile)]
    selected = dg.Definitions(assets=[theirs]).resolve_implicit_global_asset_job_def()
    done.append(selected.execute_in_process(instance=eventful.instance, partition_key="x"))
    assert all(run.success for run in done)
    key = theirs.key.to_string()
    others = {run.run_id for run in done}

    def rows() -> list[Any]:
        return [row for row in events(eventful) if row[3] == key or row[1] in others]

    before = rows()
    clean(eventful)
    assert rows() == before != []
    assert others <= {run.run_id for run in eventful.instance.get_runs()}


def test_zero_days_keep_everything(make_project: Callable[..., Project]) -> None:
    repository = make_project(keep_events_days=0).definitions.get_repository_def()
    assert "retention" not in {job.name for job in repository.get_all_jobs()}
    assert "nightly_retention" not in {schedule.name for schedule in repository.schedule_defs}


@pytest.mark.parametrize("seed", range(3))
def test_any_history_ends_in_the_same_statuses(
    make_project: Callable[..., Project], seed: int
) -> None:
    chance = random.Random(seed)
    project = make_project()
    keys = [f"{letter}.jpg" for letter in "abcdef"]
    for _ in range(14):
        key = chance.choice(keys)
        present = project.instance.get_dynamic_partitions("photos")
        match chance.choice(["good", "bad", "tick", "rerun", "part", "leave", "recipe", "clean"]):
            case "good":
                put(project, key, jpeg(seed=chance.randrange(100)))
            case "bad":
                put(project, key, b"bad %d" % chance.randrange(100))
            case "tick":
                project.run_requests(project.tick())
            case "rerun" if present:
                project.materialize(present, force=chance.random() < 0.5)
            case "part" if present:
                names = chance.sample(["grayscale", "thumbnail", "metadata"], 1)
                project.materialize([chance.choice(present)], assets=names)
            case "leave" if present:
                project.instance.delete_dynamic_partition("photos", chance.choice(present))
            case "recipe":
                project = make_project(thumbnail_size=chance.choice([32, 64]))
            case "clean":
                clean(project, page_events=chance.choice([1, 3, 1_000]))
        if chance.random() < 0.5:
            project.run_requests(project.tick())
    before = ui_state(project)
    clean(project, page_events=chance.choice([1, 3, 1_000]))
    assert ui_state(project) == before
    assert clean(project) == NOTHING
