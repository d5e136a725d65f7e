"""What runs count: each image once, by what became of it, and for good."""

from __future__ import annotations

import dagster as dg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from imgflow.api.app import create_app
from imgflow.catalog.postgres.counters import ARRIVAL_TO_READY, Counters
from imgflow.settings.tokens import own_token
from imgflow_tests.api.library import bearer, local
from imgflow_tests.orchestration.project import Project
from imgflow_tests.pictures import depth_csv, jpeg

KEYS = ["a.jpg", "b.jpg"]


def put(project: Project, key: str, body: bytes) -> None:
    file = project.source.location.folder / key
    file.unlink(missing_ok=True)  # written anew, as uploads are: another identity
    file.write_bytes(body)


def scraped(project: Project) -> dict[tuple[str, ...], float]:
    """A scrape of an API that has just started: name and values of labels to value."""
    with local(create_app(project.settings)) as client:
        client.headers.update(bearer(own_token(project.settings.home)))
        text = client.get("/metrics").text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("imgflow_") and sample.value
    }


def outcomes(project: Project) -> dict[tuple[str, ...], float]:
    return {
        names[1:]: value
        for names, value in scraped(project).items()
        if names[0] == "imgflow_image_outcomes_total"
    }


@pytest.fixture
def done(project: Project) -> Project:
    """Two photographs, a depth image and a broken one, processed."""
    for number, key in enumerate(KEYS):
        put(project, key, jpeg(seed=number))
    put(project, "c.csv", depth_csv(seed=3))
    put(project, "d.jpg", b"no image")
    project.run_requests(project.tick())
    return project


def test_a_first_run_counts_images_bytes_and_the_time_they_took(done: Project) -> None:
    found = scraped(done)
    assert outcomes(done) == {
        ("photo", "processed"): 2,
        ("photo", "rejected"): 1,
        ("depth", "processed"): 1,
    }
    images = {image.key: image for image in done.catalog.page(limit=10)}
    for kind, keys in (("photo", KEYS), ("depth", ["c.csv"])):
        rows = [images[key] for key in keys]
        assert found["imgflow_source_bytes_total", kind] == sum(row.size or 0 for row in rows)
        assert found["imgflow_output_bytes_total", kind] == sum(
            record["size"] for row in rows for record in row.outputs.values()
        )
        assert found[f"{ARRIVAL_TO_READY}_count", kind] == len(keys)
        assert found[f"{ARRIVAL_TO_READY}_bucket", kind, "60.0"] == len(keys)
        assert 0 < found[f"{ARRIVAL_TO_READY}_sum", kind] < 60
    assert not any(name[0] == "imgflow_copied_total" for name in found)


def test_the_same_run_again_counts_noops_and_changes_no_row(done: Project) -> None:
    before, rows = outcomes(done), done.rows()
    assert done.materialize(KEYS).success
    assert outcomes(done) == {**before, ("photo", "noop"): 2}
    assert done.materialize(KEYS).success
    assert outcomes(done) == {**before, ("photo", "noop"): 4}
    assert done.rows() == rows


def test_making_outputs_again_is_no_arrival(done: Project) -> None:
    arrived = scraped(done)[f"{ARRIVAL_TO_READY}_count", "photo"]
    assert done.materialize(KEYS, force=True).success
    assert outcomes(done)["photo", "processed"] == 4
    assert scraped(done)[f"{ARRIVAL_TO_READY}_count", "photo"] == arrived


def test_known_bytes_under_another_key_count_as_copied(done: Project) -> None:
    put(done, "again.jpg", jpeg(seed=0))
    put(done, "a.jpg", jpeg(seed=0))
    done.run_requests(done.tick())
    found = scraped(done)
    assert found["imgflow_copied_total", "photo"] == 2
    assert outcomes(done)["photo", "processed"] == 4
    assert found[f"{ARRIVAL_TO_READY}_count", "photo"] == 4


def test_partitions_without_an_object_count_as_trouble(done: Project) -> None:
    done.instance.add_dynamic_partitions("photos", ["nowhere.jpg"])
    assert not done.materialize(["nowhere.jpg"]).success
    assert outcomes(done)["photo", "trouble"] == 1


def test_a_flush_whose_counts_are_lost_is_done_all_the_same(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgflow.catalog.postgres.counters.is_outage", lambda _error: True)
    with project.catalog.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE counters RENAME TO elsewhere")
    put(project, "a.jpg", jpeg())
    (result,) = project.run_requests(project.tick())
    assert result.success
    assert project.statuses("photo/metadata") == {"a.jpg": "green"}
    with project.catalog.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO counters")
    assert Counters(project.catalog.engine, project.catalog.source).read() == {}


def step_counts(project: Project, result: dg.ExecuteInProcessResult) -> dict[str, object]:
    (event,) = [
        entry.dagster_event
        for entry in project.instance.all_logs(
            result.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT
        )
        if entry.dagster_event and "unchanged" in (entry.dagster_event.message or "")
    ]
    assert event.step_key == "photo_outputs"
    return {name: value.value for name, value in event.engine_event_data.metadata.items()}


def test_a_step_says_in_its_metadata_how_many_it_processed_and_left(done: Project) -> None:
    expected = {
        "processed": 0,
        "unchanged": 2,
        "rejected": 0,
        "rejected before": 0,
        "in trouble": 0,
    }
    assert step_counts(done, done.materialize(KEYS)) == expected
    put(done, "a.jpg", jpeg(seed=9))
    assert step_counts(done, done.materialize(KEYS)) == {**expected, "processed": 1, "unchanged": 1}
