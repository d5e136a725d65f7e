"""Images that are deleted while a run has them in hand: whenever that happens, it ends well."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg
import numpy as np
import pytest
import sqlalchemy as sa

from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.lifecycle import Deleted, delete_images, remove_outputs
from imgflow.catalog.postgres import depth_arrays
from imgflow.catalog.postgres.depth_arrays import DepthArrays
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.depth.ordering import ResizedChunk
from imgflow.orchestration.runs import execute
from imgflow.work.pool import WorkerPool
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_lifecycle import chunks, state
from imgflow_tests.orchestration.test_maintenance import reconcile
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import depth_csv, jpeg

DELETED = ("a.jpg", "broken.jpg", "hole.csv")
STAYING = ("b.jpg", "other.csv")

MOMENTS: dict[str, tuple[Any, str]] = {
    # A task that waits for a worker: its upload may be gone when it is read.
    "before it is read": (WorkerPool, "outcomes"),
    # The worker has written its outputs, and the row does not name them yet.
    "before its row is written": (PostgresCatalog, "record"),
    # The row names the outputs, and Dagster does not know of them yet.
    "before its events are sent": (execute, "report_images"),
}


def upload(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    put(project, "b.jpg", jpeg(seed=1))
    put(project, "broken.jpg", b"no picture")
    put(project, "hole.csv", depth_csv())
    put(project, "other.csv", depth_csv(seed=1))


def delete(project: Project, *, source: bool, keys: Sequence[str] = DELETED) -> Deleted:
    images = list(project.catalog.by_keys(keys).values())
    return delete_images(
        project.catalog, project.outputs, images, source=project.source if source else None
    )


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], Any]], list[Any]]:
    """Do something once when a run comes to a moment; returns what came of it, when it has."""

    def arrange(moment: str, act: Callable[[], Any]) -> list[Any]:
        owner, name = MOMENTS[moment]
        original, done = getattr(owner, name), list[Any]()

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if not done and (name != "report_images" or args[1]):
                done.append(None)  # what is done may come here too
                done[:] = [act()]
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrapped)
        return done

    return arrange


@pytest.mark.parametrize("source", [False, True], ids=["outputs", "with source"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_run_ends_well_and_nothing_of_the_images_is_left(
    project: Project, at: Callable[..., list[Any]], moment: str, source: bool
) -> None:
    upload(project)
    photos, depth_images = project.tick().run_requests or ()
    for request, keys in ((photos, DELETED[:2]), (depth_images, DELETED[2:])):
        done = at(moment, lambda keys=keys: delete(project, source=source, keys=keys))

        (run,) = project.run_requests(dg.SensorResult(run_requests=[request]))

        assert done[0].images == len(keys)
        if request is photos and moment == "before its events are sent":
            # Its row said so before it was deleted.
            assert "broken.jpg: " in _failure(run)
            assert "a.jpg" not in _failure(run)
        else:
            assert run.success
    _nothing_is_left(project)
    assert {key: state(project, key) for key in STAYING} == dict.fromkeys(STAYING, "ready")
    for key, asset in zip(STAYING, ("photo/thumbnail", "depth/resized"), strict=True):
        assert project.statuses(asset)[key] == "green"

    assert project.tick().run_requests == []
    _nothing_is_left(project)
    assert project.instance.get_dynamic_partitions("photos") == ["b.jpg"]
    assert project.instance.get_dynamic_partitions("depth_images") == ["other.csv"]

    put(project, "a.jpg", jpeg())
    put(project, "hole.csv", depth_csv())
    assert all(run.success for run in project.run_requests(project.tick()))
    assert (state(project, "a.jpg"), state(project, "hole.csv")) == ("ready", "ready")
    assert sum("/a.jpg/" in name for name in project.stored()) == 2
    assert project.statuses("photo/thumbnail")["a.jpg"] == "green"
    assert project.statuses("depth/resized")["hole.csv"] == "green"


def test_an_image_that_was_processed_before_is_not_brought_back_by_a_rerun(
    project: Project, at: Callable[..., list[Any]]
) -> None:
    upload(project)
    project.run_requests(project.tick())
    at("before its row is written", lambda: delete(project, source=False))
    assert project.materialize(["a.jpg", "b.jpg"], force=True).success
    _nothing_is_left(project)
    before = project.rows()
    assert project.materialize(["a.jpg"]).success, "nor by one that begins afterwards"
    assert project.rows() == before
    _nothing_is_left(project)


def test_an_image_that_is_uploaded_again_while_the_run_goes_on_is_processed_anew(
    project: Project, at: Callable[..., list[Any]]
) -> None:
    upload(project)
    asked = project.tick()

    def replace() -> None:
        delete(project, source=True)
        put(project, "a.jpg", jpeg(90, 60, seed=7))
        project.catalog.announce(project.source.list_page(None, 10).objects)

    at("before its row is written", replace)
    project.run_requests(asked)
    (run,) = project.run_requests(project.tick())
    assert run.success
    image = project.catalog.by_keys(["a.jpg"])["a.jpg"]
    assert (image.state, image.width) == ("ready", 90)
    assert all(project.outputs.exists(record["name"]) for record in image.outputs.values())


def test_outputs_of_an_image_that_came_back_are_not_removed(project: Project) -> None:
    upload(project)
    project.run_requests(project.tick())
    image = project.catalog.by_keys(["a.jpg"])["a.jpg"]
    before = project.stored()
    remove_outputs(project.catalog, project.outputs, {image.id: image.outputs})
    assert project.stored() == before


def test_an_image_that_is_deleted_before_its_partition_is_added_leaves_none(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(project)
    add = dg.DagsterInstance.add_dynamic_partitions

    def added(*args: Any, **kwargs: Any) -> None:
        if state(project, "a.jpg") != "deleted":
            delete(project, source=False)
        add(*args, **kwargs)

    monkeypatch.setattr(dg.DagsterInstance, "add_dynamic_partitions", added)
    project.run_requests(project.tick())
    project.tick()
    assert project.instance.get_dynamic_partitions("photos") == ["b.jpg"]
    assert project.instance.get_dynamic_partitions("depth_images") == ["other.csv"]


def test_ingest_counts_no_failure(project: Project, at: Callable[..., list[Any]]) -> None:
    upload(project)
    at("before its row is written", lambda: delete(project, source=True))
    report = project.ingest()
    assert (report.processed, report.rejected, report.failed) == (2, 0, 0)


def test_a_deletion_does_not_wait_for_the_worker_that_writes_the_array(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depth_arrays, "COPIED_AT_ONCE", 1)
    upload(project)
    project.catalog.announce(project.source.list_page(None, 10).objects)
    (image,) = project.catalog.by_keys(["hole.csv"]).values()
    impatient = make_engine(f"{project.settings.database_url}&options=-clock_timeout%3D2s")

    def written() -> Iterator[ResizedChunk]:
        pixels = np.zeros((2, 3), np.float32)
        yield ResizedChunk(0, 0, np.array([1.0, 2.0]), pixels)
        # The first chunk is in the database and refers to its row; its transaction goes on.
        catalog = PostgresCatalog(impatient, project.catalog.source)
        assert delete_images(catalog, project.outputs, [image]).images == 1
        yield ResizedChunk(1, 2, np.array([3.0, 4.0]), pixels)

    DepthArrays(project.catalog.engine).store(image.id, "array", written())
    assert chunks(project) == 2
    remove_outputs(project.catalog, project.outputs, {image.id: {}})
    assert chunks(project) == 0
    impatient.dispose()


def test_what_a_killed_run_left_of_deleted_images_is_collected(
    project: Project, at: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(project)
    photos, depth_images = project.tick().run_requests or ()
    monkeypatch.setattr("imgflow.work.batch.remove_outputs", lambda *_: None)
    for request, keys in ((photos, DELETED[:2]), (depth_images, DELETED[2:])):
        at(
            "before it is read",
            lambda keys=keys: delete(project, source=False, keys=keys),
        )
        project.run_requests(dg.SensorResult(run_requests=[request]))
    assert any("/a.jpg/" in name for name in project.stored())
    assert chunks(project) == 2
    long_ago = time.time() - 2 * 3_600
    for name in project.stored():
        os.utime(project.outputs.location.folder / name, (long_ago, long_ago))
    assert reconcile(project)["orphaned outputs"] == 3
    assert all("/b.jpg/" in name or "/other.csv/" in name for name in project.stored())
    assert chunks(project) == 1


def _nothing_is_left(project: Project) -> None:
    """The rows are tombstones, and nothing in the stores is named after the images."""
    for image in project.catalog.by_keys(DELETED).values():
        assert (image.state, image.outputs) == ("deleted", {})
    assert not [name for name in project.stored() if any(f"/{key}/" in name for key in DELETED)]
    with project.catalog.engine.connect() as connection:
        owners = connection.execute(
            sa.text("SELECT DISTINCT key FROM depth_chunks JOIN images ON id = image_id")
        )
        assert [row.key for row in owners] == ["other.csv"]


def _failure(run: dg.ExecuteInProcessResult) -> str:
    return "\n".join(
        str(event.event_specific_data) for event in run.all_events if event.is_step_failure
    )
