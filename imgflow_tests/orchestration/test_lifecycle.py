"""How images end: by hand, and when their object is gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from imgflow.catalog.lifecycle import delete_images
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import depth_csv, jpeg


def three(project: Project) -> None:
    put(project, "a.jpg", jpeg())
    put(project, "b.jpg", jpeg(seed=1))
    put(project, "hole.csv", depth_csv())
    project.run_requests(project.tick())


def remove(project: Project, *keys: str) -> None:
    for key in keys:
        (project.source.location.folder / key).unlink()


def state(project: Project, key: str) -> str | None:
    image = project.catalog.by_keys([key]).get(key)
    return image.state if image else None


def chunks(project: Project) -> int:
    with project.catalog.engine.connect() as connection:
        return int(connection.execute(sa.text("SELECT count(*) FROM depth_chunks")).scalar() or 0)


def test_by_default_an_image_stays_when_its_object_is_gone(project: Project) -> None:
    three(project)
    before = project.stored()
    remove(project, "a.jpg", "hole.csv")
    assert project.tick().run_requests == []
    assert state(project, "a.jpg") == state(project, "hole.csv") == "ready"
    assert project.stored() == before
    rows = project.rows()
    project.tick()
    assert project.rows() == rows, "it is noted once"


def test_an_object_that_comes_back_is_told_from_its_identity(project: Project) -> None:
    three(project)
    file = project.source.location.folder / "a.jpg"
    file.rename(file.with_name(".imgflow-upload-away"))
    project.tick()
    file.with_name(".imgflow-upload-away").rename(file)
    assert project.tick().run_requests == [], "it is the same file"
    remove(project, "a.jpg")
    project.tick()
    put(project, "a.jpg", jpeg(seed=7))
    (run,) = project.run_requests(project.tick())
    assert run.success


@pytest.mark.parametrize("policy", ["tombstone", "delete"])
def test_with_a_deleted_object_its_outputs_partition_and_row_go(
    make_project: Callable[..., Project], policy: str
) -> None:
    project = make_project(on_delete=policy)
    three(project)
    remove(project, "a.jpg", "hole.csv")

    assert project.tick().run_requests == []

    assert all("/b.jpg/" in name for name in project.stored())
    assert chunks(project) == 0
    assert project.instance.get_dynamic_partitions("photos") == ["b.jpg"]
    assert project.instance.get_dynamic_partitions("depth_images") == []
    assert state(project, "a.jpg") == ("deleted" if policy == "tombstone" else None)

    put(project, "a.jpg", jpeg())
    (run,) = project.run_requests(project.tick())
    assert run.success
    assert state(project, "a.jpg") == "ready"
    assert project.statuses("photo/thumbnail")["a.jpg"] == "green"


def test_partitions_stay_while_a_run_may_cover_them(
    make_project: Callable[..., Project],
) -> None:
    project = make_project(on_delete="tombstone")
    three(project)
    put(project, "c.jpg", jpeg(seed=3))
    (request,) = project.tick().run_requests or ()
    job = project.definitions.resolve_job_def(str(request.job_name))
    run = project.instance.create_run_for_job(job, tags=dict(request.tags))
    remove(project, "a.jpg")
    project.tick()
    assert "a.jpg" in project.instance.get_dynamic_partitions("photos")
    project.instance.report_run_canceled(run)
    project.end_pauses()
    project.run_requests(project.tick())
    project.tick()
    assert "a.jpg" not in project.instance.get_dynamic_partitions("photos")


def test_an_image_deleted_by_hand_does_not_come_back_until_it_is_overwritten(
    project: Project,
) -> None:
    three(project)
    (image,) = project.catalog.by_keys(["a.jpg"]).values()

    tried = delete_images(project.catalog, project.outputs, [image], dry_run=True)
    assert (tried.images, tried.outputs, tried.objects) == (1, 2, 0)
    assert state(project, "a.jpg") == "ready"
    assert delete_images(project.catalog, project.outputs, [image]) == tried

    assert project.tick().run_requests == []
    assert state(project, "a.jpg") == "deleted"
    assert project.instance.get_dynamic_partitions("photos") == ["b.jpg"]
    assert not [name for name in project.stored() if "/a.jpg/" in name]
    put(project, "a.jpg", jpeg(seed=9))
    (run,) = project.run_requests(project.tick())
    assert run.success


def test_the_uploaded_object_goes_too_when_asked(project: Project) -> None:
    three(project)
    (image,) = project.catalog.by_keys(["a.jpg"]).values()
    done = delete_images(project.catalog, project.outputs, [image], source=project.source)
    assert done.objects == 1
    assert not (project.source.location.folder / "a.jpg").exists()
    put(project, "a.jpg", jpeg())
    (run,) = project.run_requests(project.tick())
    assert run.success, "a new upload is a new image"


def test_a_verdict_on_an_image_that_was_deleted_meanwhile_does_not_bring_it_back(
    project: Project,
) -> None:
    put(project, "a.jpg", jpeg())
    result = project.tick()
    (image,) = project.catalog.by_keys(["a.jpg"]).values()
    delete_images(project.catalog, project.outputs, [image])
    project.run_requests(result)
    assert state(project, "a.jpg") == "deleted"


def test_a_listing_of_nothing_is_no_reason_to_delete_thousands(
    make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgflow.catalog.lifecycle.MOST_AT_ONCE", 1)
    project = make_project(on_delete="delete")
    three(project)
    remove(project, "a.jpg", "b.jpg", "hole.csv")
    result = project.tick()
    assert "none was deleted" in str(result.skip_reason)
    assert state(project, "a.jpg") == "ready"


def test_rejected_images_are_looked_at_again_after_a_retry(project: Project) -> None:
    put(project, "a.jpg", b"no picture")
    project.run_requests(project.tick())
    project.catalog.reopen([image.id for image in project.catalog.page(limit=9, state="rejected")])
    (run,) = project.run_requests(project.tick())
    assert not run.success
    assert state(project, "a.jpg") == "rejected"


def test_a_changed_recipe_makes_exactly_the_affected_outputs_again(
    make_project: Callable[..., Project],
) -> None:
    three(make_project())
    project = make_project(thumbnail_size=32)
    before = project.stored()
    names = {family.kind: family.outputs for family in project.families}
    assert project.catalog.reopen_stale("photo", names["photo"]) == 2
    assert project.catalog.reopen_stale("depth", names["depth"]) == 0

    project.run_requests(project.tick())

    after = project.stored()
    new = set(after) - set(before)
    assert sorted(name.split("/")[0] for name in new) == ["thumbnail", "thumbnail"]
    assert {name: after[name] for name in before} == before, "nothing was written twice"
    image = project.catalog.by_keys(["a.jpg"])["a.jpg"]
    assert image.outputs["thumbnail"]["width"] == 32
    assert project.catalog.reopen_stale("photo", names["photo"]) == 0


def test_an_image_deleted_by_hand_stays_deleted_where_rows_of_deleted_uploads_go(
    make_project: Callable[..., Project],
) -> None:
    project = make_project(on_delete="delete")
    three(project)
    delete_images(project.catalog, project.outputs, [project.catalog.by_keys(["a.jpg"])["a.jpg"]])
    for _ in range(3):
        assert project.tick().run_requests == []
    assert state(project, "a.jpg") == "deleted"
    remove(project, "a.jpg")
    for _ in range(2):
        project.tick()
    assert state(project, "a.jpg") is None, "nothing is left to be told from a new upload"


@pytest.mark.parametrize("policy", ["keep", "tombstone", "delete"])
def test_a_partition_stays_until_the_run_that_was_asked_for_it_is_launched(
    make_project: Callable[..., Project], policy: str
) -> None:
    project = make_project(on_delete=policy)
    put(project, "a.jpg", jpeg())
    asked = project.tick()
    remove(project, "a.jpg")
    assert project.tick().run_requests == []  # of the other sensor, before Dagster has launched it
    assert project.instance.get_dynamic_partitions("photos") == ["a.jpg"]
    (run,) = project.run_requests(asked)
    assert run.success
    project.end_pauses()
    project.tick()
    assert project.instance.get_dynamic_partitions("photos") == []
