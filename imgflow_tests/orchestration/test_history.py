"""What `imgflow show` says of the past of an image."""

from __future__ import annotations

from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.records import kind_of
from imgflow.orchestration.dagster_storage.history import Event, history
from imgflow.orchestration.dagster_storage.instance import has_instance
from imgflow.settings.variables import Settings
from imgflow_tests.orchestration.project import PHOTO_ASSETS, Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import depth_csv, jpeg


def told(project: Project, key: str, *, most: int = 20) -> list[Event]:
    image = project.catalog.by_keys([key])[key]
    (family,) = (family for family in project.families if family.kind == kind_of(key))
    return history(project.instance, family, image, most=most)


def outcomes(events: list[Event]) -> dict[str, list[str]]:
    """Outcomes by asset, newest first."""
    found: dict[str, list[str]] = {}
    for event in events:
        found.setdefault(event.asset.split("/")[1], []).append(event.outcome)
    return found


def test_it_tells_what_was_made_and_when_nothing_had_to_be(project: Project) -> None:
    put(project, "e %41.jpg", jpeg())
    put(project, "h.csv", depth_csv())
    project.run_requests(project.tick())
    project.materialize(["e %2541.jpg"], assets=["thumbnail"])

    events = told(project, "e %41.jpg")

    assert outcomes(events) == {
        "source": ["seen"],
        "grayscale": ["made"],
        "thumbnail": ["noop", "made"],
        "metadata": ["made"],
    }
    assert events == sorted(events, key=lambda event: event.time, reverse=True)
    image = project.catalog.by_keys(["e %41.jpg"])["e %41.jpg"]
    newest, first = (event for event in events if event.asset == "photo/thumbnail")
    assert newest.data_version == first.data_version == image.outputs["thumbnail"]["sha256"][:32]
    assert first.run_id == image.run_id != newest.run_id
    assert set(outcomes(told(project, "h.csv"))) == {"source", "resized", "preview", "metadata"}


def test_it_tells_which_runs_rejected_an_image_and_not_those_that_failed_for_others(
    project: Project,
) -> None:
    put(project, "a.jpg", b"no picture")
    put(project, "b.jpg", jpeg())
    (failed,) = project.run_requests(project.tick())
    assert not failed.success
    assert outcomes(told(project, "a.jpg")) == {name: ["failed"] for name in PHOTO_ASSETS}
    assert {event.run_id for event in told(project, "a.jpg")} == {failed.run_id}
    assert "failed" not in str(outcomes(told(project, "b.jpg")))

    put(project, "a.jpg", jpeg(seed=1))
    project.run_requests(project.tick())
    assert outcomes(told(project, "a.jpg")) == {
        "source": ["seen"],
        **{name: ["made", "failed"] for name in PHOTO_ASSETS},
    }


def test_a_run_that_was_canceled_or_has_not_begun_is_told_too(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    (request,) = project.tick().run_requests or ()
    job = project.definitions.resolve_job_def(str(request.job_name))
    run = project.instance.create_run_for_job(job, tags=dict(request.tags))
    assert outcomes(told(project, "a.jpg"))["thumbnail"] == ["in progress"]
    project.instance.report_run_canceled(run)
    assert outcomes(told(project, "a.jpg"))["thumbnail"] == ["canceled"]


def test_it_is_bounded_and_keeps_the_newest(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    project.run_requests(project.tick())
    runs = [project.materialize(["a.jpg"]).run_id for _ in range(3)]
    events = told(project, "a.jpg", most=4)
    assert len(events) == 4
    assert [event.outcome for event in events] == ["noop"] * 4
    assert {event.run_id for event in events[:3]} == {runs[-1]}


def test_before_anything_was_opened_there_is_nothing_to_open(
    settings: Settings, database_url: str
) -> None:
    engine = make_engine(database_url)
    assert not has_instance(settings, engine)
    engine.dispose()


def test_a_line_is_for_people(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    project.run_requests(project.tick())
    event = next(event for event in told(project, "a.jpg") if event.asset == "photo/thumbnail")
    assert f"photo/thumbnail: made  run {event.run_id[:8]}  version {event.data_version}" in (
        event.line()
    )
