"""Images beyond the hot set lose their partition and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest
import sqlalchemy as sa

from imgflow.orchestration.dagster_storage import event_log, queries
from imgflow.orchestration.runs import hot_set
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_maintenance import reconcile
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import jpeg


def keys(*numbers: int) -> list[str]:
    return [f"{number:02}.jpg" for number in numbers]


def partitions(project: Project) -> list[str]:
    return sorted(project.instance.get_dynamic_partitions("photos"))


def processed(project: Project, *numbers: int) -> None:
    for key in keys(*numbers):
        put(project, key, jpeg(seed=int(key[:2])))
    for run in project.run_requests(project.tick()):
        assert run.success


@pytest.fixture
def full(make_project: Callable[..., Project]) -> Project:
    """Ten images, which is as many as may have a partition; number 3 changed last."""
    project = make_project(hot_partitions=10)
    processed(project, *range(10))
    put(project, "03.jpg", jpeg(seed=99))
    processed(project)
    assert partitions(project) == keys(*range(10))
    return project


def test_the_images_that_changed_longest_ago_make_room_for_new_ones(full: Project) -> None:
    before = {image.key: image for image in full.catalog.page(limit=99)}
    stored = full.stored()
    newest = full.newest("photo/thumbnail", "00.jpg")

    processed(full, 10, 11)

    assert partitions(full) == keys(3, 4, 5, 6, 7, 8, 9, 10, 11)
    for key in keys(0, 1, 2):
        image = full.catalog.by_keys([key])[key]
        assert not image.in_partitions
        assert {**vars(image), "in_partitions": True} == vars(before[key]), "nothing else"
    assert stored.items() <= full.stored().items()
    assert full.newest("photo/thumbnail", "00.jpg") == newest, "its history stays"
    rows = full.rows()
    assert full.tick().run_requests == []
    assert full.rows() == rows


def test_an_upload_brings_a_sealed_image_back(full: Project) -> None:
    processed(full, 10)
    assert "00.jpg" not in partitions(full)
    put(full, "00.jpg", jpeg(seed=50))
    (run,) = full.run_requests(full.tick())
    assert run.success
    assert "00.jpg" in partitions(full)
    assert full.statuses("photo/thumbnail")["00.jpg"] == "green"


def test_a_request_brings_a_sealed_image_back_without_pixel_work(full: Project) -> None:
    processed(full, 10)
    image = full.catalog.by_keys(["00.jpg"])["00.jpg"]
    stored = full.stored()
    full.catalog.reopen([image.id])  # as `imgflow retry` does
    (run,) = full.run_requests(full.tick())
    assert run.success
    assert "00.jpg" in partitions(full)
    assert full.stored() == stored


def test_the_reconciliation_leaves_sealed_images_sealed(full: Project) -> None:
    processed(full, 10)
    before = partitions(full)
    assert reconcile(full) == {"listed": 11}
    assert partitions(full) == before


def test_a_partition_that_a_crash_left_to_a_sealed_image_is_removed(full: Project) -> None:
    processed(full, 10)
    full.instance.add_dynamic_partitions("photos", ["00.jpg"])
    assert reconcile(full) == {"listed": 11, "orphaned partitions": 1}
    assert "00.jpg" not in partitions(full)


def test_images_unchanged_for_days_are_sealed_at_night_where_that_is_set(
    make_project: Callable[..., Project],
) -> None:
    project = make_project(seal_days=30)
    processed(project, 0, 1, 2)
    with project.catalog.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE images SET updated_at = now() - interval '31 days' WHERE key < '02'")
        )
    assert reconcile(project) == {"listed": 3, "sealed": 2}
    assert partitions(project) == keys(2)


def test_the_ends_of_a_run_that_is_going_on_stay(full: Project) -> None:
    job = full.definitions.resolve_job_def("process_photos")
    run = full.instance.create_run_for_job(
        job,
        tags={
            event_log.ASSET_PARTITION_RANGE_START_TAG: "00.jpg",
            event_log.ASSET_PARTITION_RANGE_END_TAG: "02.jpg",
        },
    )
    processed(full, 10)
    assert partitions(full) == keys(0, 2, *range(3, 11))
    full.instance.report_run_canceled(run)


def test_nothing_is_sealed_while_somebody_plans_a_backfill(
    full: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot_set, "has_open_backfill", lambda _instance: True)
    processed(full, 10)
    assert partitions(full) == keys(*range(11))


def test_many_partitions_go_with_one_statement(instance: dg.DagsterInstance) -> None:
    many = [f"{number}'\"\\.jpg" for number in range(2_000)]
    instance.add_dynamic_partitions("photos", [*many, "stays.jpg"])
    instance.add_dynamic_partitions("others", many[:1])
    queries.delete_partitions(instance, "photos", many)
    assert instance.get_dynamic_partitions("photos") == ["stays.jpg"]
    assert instance.get_dynamic_partitions("others") == many[:1]
