"""Asset checks find what a person would: each with a real defect, and a green case."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from PIL import Image

from imgflow.orchestration.dagster_storage.event_log import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from imgflow.service.ingest import QUIET
from imgflow_tests.images.test_private_metadata import full_exif
from imgflow_tests.orchestration.audits import (
    audit,
    evaluations,
    failing,
    of_image,
    stored,
    summaries,
    why,
)
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import depth_csv, jpeg

KEYS = ["a.jpg", "b.jpg", "c.jpg"]


@pytest.fixture
def done(project: Project) -> Project:
    """Three photographs and two depth images."""
    for number, key in enumerate(KEYS):
        put(project, key, jpeg(600, 400, seed=number))
    for key in ("d.csv", "e.csv"):
        put(project, key, depth_csv(30, seed=len(key)))
    for run in project.run_requests(project.tick()):
        assert run.success, why(project, run)
    return project


def test_what_is_right_passes_all_checks(done: Project) -> None:
    found = audit(done)
    assert set(found) == {
        ("photo/grayscale", "readable"),
        ("photo/grayscale", "nothing_private"),
        ("photo/thumbnail", "readable"),
        ("photo/thumbnail", "fits_box"),
        ("photo/thumbnail", "nothing_private"),
        ("photo/metadata", "agreement"),
        ("depth/resized", "depths_rise"),
        ("depth/preview", "readable"),
        ("depth/metadata", "agreement"),
    }
    assert failing(found) == {}
    assert found["photo/thumbnail", "readable"].metadata["examined"].value == 3
    assert found["depth/resized", "depths_rise"].metadata["examined"].value == 2


def defect_deleted(project: Project) -> None:
    stored(project, "b.jpg", "grayscale").unlink()


def defect_larger(project: Project) -> None:
    image = Image.open(stored(project, "b.jpg", "thumbnail"))
    file = io.BytesIO()
    image.resize((512, 341)).save(file, "JPEG")
    stored(project, "b.jpg", "thumbnail").write_bytes(file.getvalue())


def defect_place(project: Project) -> None:
    path = stored(project, "b.jpg", "thumbnail")
    file = io.BytesIO()
    Image.open(path).save(file, "JPEG", exif=full_exif().tobytes(), comment=b"at home")
    path.write_bytes(file.getvalue())


def defect_corrupt(project: Project) -> None:
    path = stored(project, "b.jpg", "thumbnail")
    path.write_bytes(path.read_bytes()[:900])


def defect_row(project: Project) -> None:
    grayscale = "outputs = jsonb_set(outputs, '{grayscale,height}', '401')"
    change(project, "b.jpg", f"height = 401, {grayscale}")


def defect_other_bytes(project: Project) -> None:
    path = stored(project, "b.jpg", "grayscale")
    file = io.BytesIO()
    Image.open(path).point(lambda level: 255 - level).save(file, "JPEG")
    path.write_bytes(file.getvalue())


def change(project: Project, key: str, what: str) -> None:
    with project.catalog.engine.begin() as connection:
        statement = f"UPDATE images SET {what} WHERE key = :key"  # noqa: S608 - of this file
        connection.execute(sa.text(statement), {"key": key})


@pytest.mark.parametrize(
    ("defect", "expected"),
    [
        (defect_deleted, {("photo/grayscale", "readable"): "is not in the output store"}),
        (
            defect_larger,
            {
                ("photo/thumbnail", "readable"): "512 x 341 pixels, and its row says 256 x 171",
                ("photo/thumbnail", "fits_box"): "512 x 341 pixels do not fit 256 x 256",
            },
        ),
        (
            defect_place,
            {
                ("photo/thumbnail", "readable"): "were written",
                ("photo/thumbnail", "nothing_private"): "EXIF GPSInfo",
            },
        ),
        (defect_corrupt, {("photo/thumbnail", "readable"): "does not decode"}),
        (defect_row, {("photo/grayscale", "readable"): "600 x 400 pixels, and its row says"}),
        (defect_other_bytes, {("photo/grayscale", "readable"): "were written"}),
    ],
)
def test_a_defect_is_found_named_and_its_advice_works(
    done: Project, defect: Callable[[Project], None], expected: dict[tuple[str, str], str]
) -> None:
    defect(done)

    found = audit(done)

    assert set(failing(found)) == set(expected)
    for name, text in expected.items():
        one = found[name]
        assert "b.jpg" in str(one.description)
        assert text in str(one.description)
        assert "force: true" in str(one.metadata["advice"].value)
        assert one.metadata["defective"].value == 1
        assert "- b.jpg: " in str(one.metadata["images"].value)
        assert of_image(done, name, "b.jpg").passed is False

    forced = done.materialize(["b.jpg"], force=True)
    assert forced.success, why(done, forced)
    assert failing(audit(done)) == {}
    for name in expected:
        assert of_image(done, name, "b.jpg").passed is True


def test_severities_say_what_harms(done: Project) -> None:
    defect_larger(done)
    found = audit(done)
    assert found["photo/thumbnail", "readable"].severity == dg.AssetCheckSeverity.ERROR
    assert found["photo/thumbnail", "fits_box"].severity == dg.AssetCheckSeverity.WARN


def depths_of(project: Project, key: str) -> tuple[int, bytes]:
    with project.catalog.engine.connect() as connection:
        row = connection.execute(
            sa.text(
                "SELECT c.image_id, c.depths FROM depth_chunks c "
                "JOIN images i ON i.id = c.image_id WHERE i.key = :key AND chunk = 0"
            ),
            {"key": key},
        ).one()
    return row.image_id, bytes(row.depths)


@pytest.mark.parametrize(
    ("swap", "text"),
    [
        (lambda d: d[8:16] + d[:8] + d[16:], "depths fall from 9000.2 to 9000.1 after row 1"),
        (lambda d: d[:8] + d[:8] + d[16:], None),
        (lambda d: bytes(8) + d[8:], "depths from 0.0 to 9003.0, and its row says 9000.1"),
    ],
    ids=["swapped", "equal", "bound"],
)
def test_depths_that_fall_or_disagree_with_the_row_are_found(
    done: Project, swap: Callable[[bytes], bytes], text: str | None
) -> None:
    image_id, depths = depths_of(done, "d.csv")
    with done.catalog.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE depth_chunks SET depths = :depths WHERE image_id = :id"),
            {"depths": swap(depths), "id": image_id},
        )
    found = failing(audit(done))
    if text is None:
        assert found == {}
        return
    assert set(found) == {("depth/resized", "depths_rise")}
    assert text in found["depth/resized", "depths_rise"]
    assert done.materialize(["d.csv"], force=True).success
    assert failing(audit(done)) == {}


def test_a_depth_image_whose_rows_are_not_those_of_its_row_is_found(done: Project) -> None:
    change(done, "d.csv", "height = 31")
    assert "30 rows, and its row says 31" in failing(audit(done))["depth/resized", "depths_rise"]
    with done.catalog.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM depth_chunks")
    found = audit(done)["depth/resized", "depths_rise"]
    assert found.metadata["defective"].value == 2
    assert "no row of its array" in str(found.description)


def defect_partition(project: Project) -> None:
    project.instance.delete_dynamic_partition("photos", "b.jpg")


def defect_orphan(project: Project) -> None:
    project.instance.add_dynamic_partitions("photos", ["ghost.jpg"])


def defect_unlisted(project: Project) -> None:
    put(project, "new.jpg", jpeg())


def defect_gone(project: Project) -> None:
    (project.source.location.folder / "b.jpg").unlink()


@pytest.mark.parametrize(
    ("defect", "text"),
    [
        (defect_partition, "b.jpg: has a row, and Dagster lost its partition"),
        (defect_orphan, "ghost.jpg: has a partition, and no row"),
        (defect_unlisted, "new.jpg: lies in the bucket and has no row"),
        (defect_gone, "b.jpg: has a row, and its upload is gone"),
    ],
)
def test_differences_between_bucket_table_and_partitions_are_found(
    done: Project, defect: Callable[[Project], None], text: str
) -> None:
    defect(done)
    found = failing(audit(done))
    assert set(found) == {("photo/metadata", "agreement")}
    assert text in found["photo/metadata", "agreement"]
    assert "reconcile" in found["photo/metadata", "agreement"]
    reconcile = done.definitions.resolve_job_def("reconcile")
    assert reconcile.execute_in_process(QUIET, instance=done.instance).success
    assert failing(audit(done)) == {}


def test_a_person_examines_the_images_of_a_selection_only(done: Project) -> None:
    defect_deleted(done)
    by_range = {
        ASSET_PARTITION_RANGE_START_TAG: "b.jpg",
        ASSET_PARTITION_RANGE_END_TAG: "c.jpg",
    }
    for options, examined, fails in (
        ({"keys": ["a.jpg"]}, 1, False),
        ({"keys": ["a.jpg", "b.jpg"]}, 2, True),
        ({"tags": {"dagster/partition": "c.jpg"}}, 1, False),
        ({"tags": by_range}, 2, True),
    ):
        found = audit(done, **options)  # type: ignore[arg-type]
        one = found["photo/grayscale", "readable"]
        assert one.metadata["examined"].value == examined, options
        assert one.passed is not fails, options
        assert one.metadata["scope"].value == "selected images"


def test_of_many_images_a_check_by_hand_examines_some_at_even_distances(done: Project) -> None:
    one = audit(done, most=2)["photo/grayscale", "readable"]
    assert one.metadata["examined"].value == 2
    assert "at most 2" in str(one.metadata["scope"].value)


def test_a_defect_that_a_run_makes_shows_in_that_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a store that loses what was written, or somebody who writes over it."""
    from imgflow.orchestration.checks import asset_checks

    examine = asset_checks.examine_sample

    def lose(context: Any, examination: Any, sample: Sequence[str]) -> None:
        stored(project, "a.jpg", "thumbnail").unlink()
        defect_place(project)
        examine(context, examination, sample)

    monkeypatch.setattr("imgflow.orchestration.assets.asset_definitions.examine_sample", lose)
    monkeypatch.setattr(asset_checks, "FEWEST_IMAGES", len(KEYS))
    for key in KEYS:
        put(project, key, jpeg(600, 400, seed=ord(key[0])))
    (run,) = project.run_requests(project.tick())
    assert run.success, "checks do not block"
    found = failing(summaries(evaluations(project, run)))
    assert set(found) == {("photo/thumbnail", "readable"), ("photo/thumbnail", "nothing_private")}
    assert of_image(project, ("photo/thumbnail", "nothing_private"), "b.jpg").passed is False
    assert project.statuses("photo/thumbnail") == dict.fromkeys(KEYS, "green")


def test_a_store_that_does_not_answer_is_no_verdict(
    done: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgflow.errors import Trouble
    from imgflow.store.naming import MARKER
    from imgflow.store.output_store import OutputStore

    get = OutputStore.get

    def refuse(store: OutputStore, name: str) -> bytes | None:
        if name == MARKER:  # without which nothing is written, so there would be no run to check
            return get(store, name)
        raise Trouble("the store does not answer")

    monkeypatch.setattr(OutputStore, "get", refuse)
    result = done.definitions.resolve_job_def("audit").execute_in_process(
        QUIET, instance=done.instance, raise_on_error=False
    )
    assert not result.success
    assert [one for one in evaluations(done, result) if one.check_name == "readable"] == []
    rerun = done.materialize(KEYS, force=True)
    assert rerun.success
    assert evaluations(done, rerun) == []


@pytest.mark.usefixtures("done")
def test_images_of_another_recipe_are_not_held_against_the_box(
    make_project: Callable[..., Project],
) -> None:
    smaller = make_project(thumbnail_size=64)
    found = audit(smaller)
    assert failing(found) == {}
    assert found["photo/thumbnail", "fits_box"].metadata["skipped"].value == 3


def test_an_image_that_changes_while_it_is_examined_is_no_finding(
    done: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgflow.store.output_store import OutputStore

    get = OutputStore.get

    def overtaken(self: OutputStore, name: str) -> bytes | None:
        if "/b.jpg/" in name:
            change(done, "b.jpg", "updated_at = now()")
            return None
        return get(self, name)

    monkeypatch.setattr(OutputStore, "get", overtaken)
    assert failing(audit(done)) == {}


def test_the_last_evaluation_of_a_check_tells_of_a_defect_that_is_left(done: Project) -> None:
    """Dagster's UI takes the last for the status of the asset, whatever its partition."""
    for key in ("b.jpg", "c.jpg"):
        stored(done, key, "thumbnail").unlink()
    audit(done)
    assert done.materialize(["b.jpg"], force=True).success
    audit(done)
    assert of_image(done, ("photo/thumbnail", "readable"), "b.jpg").passed is True
    key = dg.AssetCheckKey(dg.AssetKey(["photo", "thumbnail"]), "readable")
    latest = done.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert latest.status.value == "FAILED"
    done.materialize(["c.jpg"], force=True)
    audit(done)
    latest = done.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert latest.status.value == "SUCCEEDED"
