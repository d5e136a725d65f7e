"""The whole way: from objects to green partitions, pictures and rows, and the same again."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from imgflow.catalog.partition_keys import partition_key
from imgflow.catalog.postgres.depth_arrays import DepthArrays
from imgflow_tests.orchestration.project import PHOTO_ASSETS, Project
from imgflow_tests.pictures import depth_csv, jpeg, mixed_objects, png

INLINE = re.compile(
    r"\[!\[.*\]\(data:image/(?:jpeg|webp);base64,([0-9A-Za-z+/=]+)\)\]\(http://127.0.0.1:8000/gallery/\d+\)"
)
BROKEN = {"photos/cut.jpg", "notes.png", "empty.jpg"}


def put(project: Project, key: str, body: bytes) -> None:
    path = project.source.location.folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


@pytest.fixture
def sixty(project: Project) -> Project:
    """A project with sixty objects, three of them broken, after one tick and its runs."""
    for key, body, _ in mixed_objects():
        put(project, key, body)
    project.run_requests(project.tick())
    return project


def test_of_60_mixed_objects_57_become_ready_and_3_are_rejected_with_a_reason(
    sixty: Project,
) -> None:
    images = sixty.catalog.page(limit=100)
    assert Counter(image.state for image in images) == {"ready": 57, "rejected": 3}
    reasons = {image.key: image.reason for image in images if image.state == "rejected"}
    assert set(reasons) == BROKEN
    assert "is incomplete" in reasons["photos/cut.jpg"]
    assert "text" in reasons["notes.png"]
    assert "empty" in reasons["empty.jpg"]
    assert {image.recipe is None for image in images if image.state == "rejected"} == {True}


def test_exactly_the_rejected_partitions_are_red_and_all_others_green(sixty: Project) -> None:
    for asset in PHOTO_ASSETS:
        statuses = sixty.statuses(f"photo/{asset}")
        assert {key for key, status in statuses.items() if status == "red"} == BROKEN
        assert Counter(statuses.values()) == {"green": 51, "red": 3}
    for asset in ("resized", "preview", "metadata"):
        assert Counter(sixty.statuses(f"depth/{asset}").values()) == {"green": 6}


def test_there_is_one_run_for_each_family(sixty: Project) -> None:
    assert Counter(run.job_name for run in sixty.runs()) == {
        "process_photos": 1,
        "process_depth_images": 1,
    }


def test_the_same_again_reads_writes_and_changes_nothing(
    sixty: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, stored, runs = sixty.rows(), sixty.stored(), len(sixty.runs())
    # Whoever opens a file now fails: unreadable names, unchanged directory entries.
    monkeypatch.setattr("imgflow.store.folder.source_folder.FolderSource._open", _must_not_be_read)

    assert sixty.tick().run_requests == []
    assert sixty.ingest().unchanged == 60

    assert (sixty.rows(), sixty.stored(), len(sixty.runs())) == (rows, stored, runs)


def _must_not_be_read(*_: object) -> None:
    raise AssertionError("a body was read")


def test_an_operator_who_materialises_done_partitions_gets_noops(sixty: Project) -> None:
    rows, stored = sixty.rows(), sixty.stored()
    keys = [f"photos/IMG_{number:04d}.JPG" for number in range(10, 20)]

    result = sixty.materialize(keys)

    assert result.success
    assert (sixty.rows(), sixty.stored()) == (rows, stored)
    metadata = sixty.newest("photo/thumbnail", keys[3]).metadata
    assert metadata["noop"].value is True
    assert sixty.newest("photo/thumbnail", keys[3]).metadata["bytes"] == metadata["bytes"]


def test_force_makes_the_same_bytes_again(sixty: Project) -> None:
    keys = ["photos/IMG_0003.JPG"]
    before = sixty.stored()
    (name,) = (name for name in before if fnmatch(name, "thumbnail/*/photos/IMG_0003.JPG/*"))
    body = sixty.outputs.get(name)

    assert sixty.materialize(keys, force=True).success

    assert set(sixty.stored()) == set(before)
    assert sixty.stored()[name][1] > before[name][1], "it was not written again"
    assert sixty.outputs.get(name) == body
    assert sixty.newest("photo/thumbnail", keys[0]).metadata["noop"].value is False


def test_an_operator_who_materialises_a_new_partition_gets_what_the_sensor_makes(
    project: Project, make_project: Callable[..., Project], home: Path
) -> None:
    put(project, "a.jpg", jpeg(seed=5))
    project.instance.add_dynamic_partitions("photos", ["a.jpg"])
    assert project.materialize(["a.jpg"]).success
    by_hand = project.catalog.by_keys(["a.jpg"])["a.jpg"]

    other = make_project(home=home / "other")
    put(other, "a.jpg", jpeg(seed=5))
    other.run_requests(other.tick())
    by_sensor = other.catalog.by_keys(["a.jpg"])["a.jpg"]

    assert by_hand.state == by_sensor.state == "ready"
    for name, record in by_hand.outputs.items():
        assert record["sha256"] == by_sensor.outputs[name]["sha256"]


def test_a_subset_of_the_assets_can_be_materialised(sixty: Project) -> None:
    assert sixty.materialize(["scans/scan 3.png"], assets=["thumbnail"], force=True).success
    assert sixty.newest("photo/thumbnail", "scans/scan 3.png").metadata["noop"].value is False
    events = sixty.instance.fetch_materializations(
        _asset("photo/grayscale", "scans/scan 3.png"), limit=10
    ).records
    assert len(events) == 1, "grayscale was not selected"


def test_every_image_has_its_own_metadata_and_data_version(sixty: Project) -> None:
    versions = {
        sixty.newest("photo/grayscale", f"photos/IMG_{number:04d}.JPG").tags["dagster/data_version"]
        for number in range(40)
    }
    assert len(versions) == 40
    image = sixty.catalog.by_keys(["photos/IMG_0007.JPG"])["photos/IMG_0007.JPG"]
    newest = sixty.newest("photo/thumbnail", "photos/IMG_0007.JPG")
    assert newest.metadata["bytes"].value == image.outputs["thumbnail"]["size"]
    assert newest.tags["dagster/code_version"] == image.outputs["thumbnail"]["fingerprint"]
    source = sixty.newest("photo/source", "photos/IMG_0007.JPG")
    assert source.tags["dagster/data_version"] == image.announced


def test_the_outputs_are_the_pictures(sixty: Project) -> None:
    image = sixty.catalog.by_keys(["photos/IMG_0001.JPG"])["photos/IMG_0001.JPG"]
    gray = _open(sixty, image.outputs["grayscale"]["name"])
    assert (gray.mode, gray.size) == ("L", (64, 48))
    reference = Image.open(io.BytesIO(jpeg(seed=1))).convert("L")
    assert np.abs(np.asarray(gray, int) - np.asarray(reference, int)).mean() < 2
    thumbnail = _open(sixty, image.outputs["thumbnail"]["name"])
    assert (thumbnail.mode, thumbnail.size) == ("RGB", (64, 48)), "never enlarged"
    assert (image.width, image.height, image.media_type) == (64, 48, "image/jpeg")


def _open(project: Project, name: str) -> Image.Image:
    body = project.outputs.get(name)
    assert body is not None
    return Image.open(io.BytesIO(body))


def test_a_depth_image_is_an_array_of_width_150_with_exact_depths(sixty: Project) -> None:
    image = sixty.catalog.by_keys(["holes/hole-2.csv"])["holes/hole-2.csv"]
    rows = DepthArrays(sixty.catalog.engine).read(image.id)
    assert rows.pixels.shape == (40, 150)
    assert rows.pixels.dtype == np.float32
    assert rows.depths.tolist() == [round(9000.1 + step / 10, 1) for step in range(40)]
    part = DepthArrays(sixty.catalog.engine).read(image.id, 9000.2, 9000.4)
    assert part.depths.tolist() == [9000.2, 9000.3, 9000.4]
    metadata = sixty.newest("depth/resized", partition_key("holes/hole-2.csv")).metadata
    facts = {name: value.value for name, value in metadata.items()}
    assert (facts["shape"], facts["dtype"]) == ("40 x 150", "float32")
    assert (facts["depth_min"], facts["depth_max"]) == (9000.1, 9004.0)
    assert facts["bytes"] == 40 * (8 + 4 * 150)
    assert 0 <= facts["value_min"] < facts["value_max"] <= 255
    assert (facts["gaps"], facts["duplicates"], facts["was_sorted"]) == (0, 0, "ascending")
    assert (facts["first_lines"], facts["notes"]) == ({}, "")
    assert (part.pixels == rows.pixels[1:4]).all()


def test_the_ui_shows_the_picture_of_a_depth_image_also_after_a_no_op(sixty: Project) -> None:
    key = "holes/hole-2.csv"
    shown = []
    for is_noop in (False, True):
        metadata = sixty.newest("depth/preview", partition_key(key)).metadata
        assert metadata["noop"].value is is_noop
        picture = metadata["picture"]
        assert isinstance(picture, dg.MarkdownMetadataValue)
        # The UI's sanitiser lets pictures through whose address is their data.
        found = INLINE.fullmatch(picture.value)
        assert found is not None
        small = Image.open(io.BytesIO(base64.b64decode(found[1])))
        assert small.format == "WEBP"
        assert small.width >= 48
        shown.append(picture.value)
        sixty.materialize([key])
    assert shown[0] == shown[1]
    assert len(shown[0]) < 1_000, "longer ones are shown in a dialog only"


def test_an_overwritten_object_is_processed_again_under_the_same_partition(
    project: Project,
) -> None:
    put(project, "a.jpg", jpeg(64, 48))
    put(project, "b.jpg", jpeg(64, 48, seed=1))
    project.run_requests(project.tick())
    first = project.newest("photo/thumbnail", "a.jpg").tags["dagster/data_version"]

    put(project, "a.jpg", png(80, 30, seed=2))
    result = project.tick()
    project.run_requests(result)

    image = project.catalog.by_keys(["a.jpg"])["a.jpg"]
    assert (image.state, image.width, image.media_type) == ("ready", 80, "image/png")
    assert project.newest("photo/thumbnail", "a.jpg").tags["dagster/data_version"] != first
    assert project.instance.get_dynamic_partitions("photos") == ["a.jpg", "b.jpg"]


def test_an_upper_case_suffix_is_treated_like_a_lower_case_one(project: Project) -> None:
    put(project, "IMG_1.PNG", png(seed=4))
    put(project, "img_1.png", png(seed=4))
    put(project, "HOLE.CSV", depth_csv())
    assert project.ingest().processed == 3
    upper, lower = (project.catalog.by_keys([k])[k] for k in ("IMG_1.PNG", "img_1.png"))
    assert upper.outputs["thumbnail"]["sha256"] == lower.outputs["thumbnail"]["sha256"]
    assert upper.id != lower.id
    assert project.catalog.by_keys(["HOLE.CSV"])["HOLE.CSV"].kind == "depth"


def test_a_rejected_image_is_looked_at_again_when_someone_asks_or_when_it_changes(
    project: Project,
) -> None:
    put(project, "a.jpg", b"not yet a picture")
    (run,) = project.run_requests(project.tick())
    assert not run.success
    assert project.tick().run_requests == [], "nothing retries it by itself"
    assert not project.materialize(["a.jpg"]).success
    assert project.statuses("photo/thumbnail") == {"a.jpg": "red"}

    put(project, "a.jpg", jpeg())
    project.run_requests(project.tick())
    assert project.statuses("photo/thumbnail") == {"a.jpg": "green"}
    assert project.catalog.by_keys(["a.jpg"])["a.jpg"].reason is None


def test_a_partition_without_an_object_fails_with_its_name(project: Project) -> None:
    project.instance.add_dynamic_partitions("photos", ["ghost.jpg"])
    result = project.materialize(["ghost.jpg"])
    assert not result.success
    (event,) = result.get_step_failure_events()
    assert "no object 'ghost.jpg'" in str(event.step_failure_data.user_failure_data.description)


def test_source_and_outputs_in_one_folder_never_feed_on_themselves(
    make_project: Callable[..., Project], tmp_path: Path
) -> None:
    url = (tmp_path / "bucket").as_uri()
    project = make_project(source_url=url, output_url=f"{url}/derived")
    put(project, "a.jpg", jpeg())
    for _ in range(3):
        project.run_requests(project.tick())
    assert [image.key for image in project.catalog.page(limit=10)] == ["a.jpg"]
    assert len(project.stored()) == 2


def _asset(asset: str, partition: str):  # type: ignore[no-untyped-def]
    import dagster as dg

    return dg.AssetRecordsFilter(
        asset_key=dg.AssetKey(asset.split("/")), asset_partitions=[partition]
    )


def test_the_same_bytes_under_another_key_cost_no_pixel_work(sixty: Project) -> None:
    put(sixty, "again/copy of 7.jpg", jpeg(seed=7))
    (run,) = sixty.run_requests(sixty.tick())
    assert run.success
    copy, first = (
        sixty.catalog.by_keys([key])[key] for key in ("again/copy of 7.jpg", "photos/IMG_0007.JPG")
    )
    metadata = sixty.newest("photo/thumbnail", "again/copy of 7.jpg").metadata
    assert "copy ms" in metadata
    assert "process ms" not in metadata
    assert (copy.sha256, copy.width, copy.facts) == (first.sha256, first.width, first.facts)
    for name, record in copy.outputs.items():
        assert record["sha256"] == first.outputs[name]["sha256"]
        assert record["name"] != first.outputs[name]["name"], "each image has its own objects"
        assert sixty.outputs.get(record["name"]) == sixty.outputs.get(first.outputs[name]["name"])


def test_a_depth_image_under_another_key_is_copied_within_the_database(sixty: Project) -> None:
    put(sixty, "again/copy.CSV", depth_csv(seed=2))
    (run,) = sixty.run_requests(sixty.tick())
    assert run.success
    copy, first = (
        sixty.catalog.by_keys([key])[key] for key in ("again/copy.CSV", "holes/hole-2.csv")
    )
    metadata = sixty.newest("depth/resized", "again/copy.CSV").metadata
    assert "copy ms" in metadata
    assert "process ms" not in metadata
    assert (copy.sha256, copy.width, copy.facts) == (first.sha256, first.width, first.facts)
    arrays = DepthArrays(sixty.catalog.engine)
    copied, original = arrays.read(copy.id), arrays.read(first.id)
    assert copied.array != original.array
    assert (copied.depths == original.depths).all()
    assert (copied.pixels == original.pixels).all()
    preview = [image.outputs["preview"] for image in (copy, first)]
    assert preview[0]["name"] != preview[1]["name"]
    assert sixty.outputs.get(preview[0]["name"]) == sixty.outputs.get(preview[1]["name"])


def test_an_upload_of_the_same_size_with_other_bytes_is_processed(project: Project) -> None:
    body = jpeg(seed=1)
    put(project, "a.jpg", body)
    project.run_requests(project.tick())
    put(project, "b.jpg", body[:-2] + b"\x00\x00" if body[-2:] != b"\x00\x00" else body)
    put(project, "c.jpg", body + b"")
    project.run_requests(project.tick())
    images = project.catalog.by_keys(["a.jpg", "b.jpg", "c.jpg"])
    assert images["b.jpg"].sha256 != images["a.jpg"].sha256
    assert images["c.jpg"].sha256 == images["a.jpg"].sha256


def test_the_same_bytes_uploaded_again_cost_no_pixel_work(sixty: Project) -> None:
    before = sixty.stored()
    put(sixty, "photos/IMG_0007.JPG", jpeg(seed=7))
    put(sixty, "holes/hole-2.csv", depth_csv(seed=2))
    runs = sixty.run_requests(sixty.tick())
    assert [run.success for run in runs] == [True, True]
    assert sixty.stored() == before
    for asset, key in (
        ("photo/grayscale", "photos/IMG_0007.JPG"),
        ("depth/resized", "holes/hole-2.csv"),
    ):
        metadata = sixty.newest(asset, key).metadata
        assert "process ms" not in metadata
        assert metadata["noop"].value is True
