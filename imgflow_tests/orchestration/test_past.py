"""What the gallery says of the past of an image is what Dagster says, without Dagster."""

from __future__ import annotations

from imgflow.catalog.postgres.event_history import Past
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import kind_of
from imgflow.orchestration.dagster_storage.history import history
from imgflow_tests.catalog.uploads import upload
from imgflow_tests.orchestration.project import PHOTO_ASSETS, Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import depth_csv, jpeg


def past(project: Project, key: str, *, most: int = 20) -> list[Past]:
    image = project.catalog.by_keys([key])[key]
    assets = ("preview", "resized", "metadata") if kind_of(key) == "depth" else PHOTO_ASSETS
    return project.catalog.past(image, assets, most=most)


def as_dagster_says(project: Project, key: str) -> set[tuple[str, str, str]]:
    image = project.catalog.by_keys([key])[key]
    (family,) = (family for family in project.families if family.kind == kind_of(key))
    events = history(project.instance, family, image)
    return {(event.run_id, event.asset.split("/")[1], event.outcome) for event in events}


def test_it_is_what_dagster_says(project: Project) -> None:
    for key, body in (
        ("e %41.jpg", jpeg()),
        ("two\nlines.jpg", jpeg(seed=2)),
        ("bad.jpg", b"no picture"),
        ("h.csv", depth_csv()),
    ):
        put(project, key, body)
    project.run_requests(project.tick())
    project.materialize(["e %2541.jpg"], assets=["thumbnail"])
    for key in ("e %41.jpg", "two\nlines.jpg", "bad.jpg", "h.csv"):
        told = past(project, key)
        found = {(one.run_id, asset, one.outcome) for one in told for asset in one.assets}
        assert found == as_dagster_says(project, key)
        assert told == sorted(told, key=lambda one: one.time, reverse=True)
    newest, *_, oldest = past(project, "e %41.jpg")
    assert (newest.outcome, newest.assets) == ("noop", ("thumbnail",))
    assert {oldest.outcome, past(project, "e %41.jpg")[1].outcome} == {"seen", "made"}
    assert past(project, "e %41.jpg", most=1) == [newest]
    assert [one.outcome for one in past(project, "bad.jpg") if one.outcome != "seen"] == ["failed"]


def test_before_dagster_has_tables_there_is_none(catalog: PostgresCatalog) -> None:
    (image,) = catalog.announce([upload("a.jpg")]).new
    assert catalog.past(image, PHOTO_ASSETS) == []
