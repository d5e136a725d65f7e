"""What an operator sees of an image: its picture, its numbers, and where to go on."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable

import dagster as dg
import pytest
from PIL import Image

from imgflow.assembly import build_definitions
from imgflow.errors import SettingsError
from imgflow.orchestration.runs import execute
from imgflow.settings.variables import Settings
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import depth_csv, jpeg

INLINE = re.compile(r"\[!\[(\w+)\]\(data:image/(?:jpeg|webp);base64,([0-9A-Za-z+/=]+)\)\]\((\S+)\)")
LINKED = re.compile(r"\[!\[(\w+)\]\((http\S+)\)\]\((\S+)\)")


@pytest.fixture
def one(project: Project) -> Project:
    """A photograph and a depth image, processed."""
    put(project, "in/a.jpg", jpeg(600, 400, seed=3))
    put(project, "d.csv", depth_csv(30))
    for run in project.run_requests(project.tick()):
        assert run.success
    return project


def values(materialization: dg.AssetMaterialization) -> dict[str, object]:
    return {name: value.value for name, value in materialization.metadata.items()}


def picture(materialization: dg.AssetMaterialization) -> str:
    value = materialization.metadata["picture"]
    assert isinstance(value, dg.MarkdownMetadataValue)
    return value.value


@pytest.mark.parametrize(
    ("asset", "partition", "mode"),
    [
        ("photo/source", "in/a.jpg", "RGB"),
        ("photo/grayscale", "in/a.jpg", "L"),
        ("photo/thumbnail", "in/a.jpg", "RGB"),
        ("photo/metadata", "in/a.jpg", "RGB"),
        ("depth/source", "d.csv", "RGB"),
        ("depth/resized", "d.csv", "RGB"),
        ("depth/metadata", "d.csv", "RGB"),
        ("depth/preview", "d.csv", "RGB"),
    ],
)
def test_every_materialisation_shows_a_small_picture_that_leads_to_the_gallery(
    one: Project, asset: str, partition: str, mode: str
) -> None:
    found = INLINE.fullmatch(picture(one.newest(asset, partition)))
    assert found is not None
    assert len(found[0]) < 1_000, "longer ones are shown in a dialog only"
    small = Image.open(io.BytesIO(base64.b64decode(found[2])))
    assert small.mode == mode
    assert max(small.size) >= 30
    image = next(iter(one.catalog.by_keys([partition]).values()))
    assert found[3] == f"http://127.0.0.1:8000/gallery/{image.id}"


def test_the_picture_is_the_photographs(one: Project) -> None:
    found = INLINE.fullmatch(picture(one.newest("photo/thumbnail", "in/a.jpg")))
    assert found is not None
    small = Image.open(io.BytesIO(base64.b64decode(found[2])))
    name = one.catalog.by_keys(["in/a.jpg"])["in/a.jpg"].outputs["thumbnail"]["name"]
    body = one.outputs.get(name)
    assert body is not None
    expected = Image.open(io.BytesIO(body)).resize(small.size, Image.Resampling.BOX)
    differences = [abs(a - b) for a, b in zip(small.tobytes(), expected.tobytes(), strict=True)]
    assert sum(differences) / len(differences) < 12


def test_the_numbers_are_those_of_this_image(one: Project) -> None:
    image = one.catalog.by_keys(["in/a.jpg"])["in/a.jpg"]
    shown = {
        name: value.value
        for name, value in one.newest("photo/thumbnail", "in/a.jpg").metadata.items()
    }
    record = image.outputs["thumbnail"]
    assert (shown["width"], shown["height"]) == (256, 171)
    assert (shown["bytes"], shown["upload bytes"]) == (record["size"], image.size)
    assert shown["ratio"] == round(record["size"] / image.announced_size, 4)
    assert (shown["upload"], shown["recipe"]) == (image.announced, record["fingerprint"])
    assert shown["noop"] is False
    assert {"read ms", "process ms", "write ms"} <= set(shown)
    assert shown["API"] == f"http://127.0.0.1:8000/images/{image.id}"
    row = {
        name: value.value
        for name, value in one.newest("photo/metadata", "in/a.jpg").metadata.items()
    }
    assert (row["id"], row["recipe"], row["upload"]) == (image.id, image.recipe, image.announced)
    assert (row["key"], row["state"], row["media_type"]) == ("in/a.jpg", "ready", "image/jpeg")
    assert row["bytes"] == sum(record["size"] for record in image.outputs.values())


def test_a_no_op_shows_the_picture_that_the_api_has(one: Project) -> None:
    image = one.catalog.by_keys(["in/a.jpg"])["in/a.jpg"]
    assert one.materialize(["in/a.jpg"]).success
    for asset, shown in (("thumbnail", "thumbnail"), ("metadata", "thumbnail")):
        noop = one.newest(f"photo/{asset}", "in/a.jpg")
        assert noop.metadata["noop"].value is True
        found = LINKED.fullmatch(picture(noop))
        assert found is not None
        assert found[2] == f"http://127.0.0.1:8000/images/{image.id}/{shown}"
    assert not [name for name in noop.metadata if name.endswith(" ms")]
    assert "data:" not in str(image.outputs), "rows are read in every listing"


def test_links_begin_where_people_reach_the_api(
    make_project: Callable[..., Project],
) -> None:
    project = make_project(public_url="https://images.example.org/")
    put(project, "a.jpg", jpeg())
    project.run_requests(project.tick())
    image = project.catalog.by_keys(["a.jpg"])["a.jpg"]
    for asset in ("source", "metadata"):
        link = project.newest(f"photo/{asset}", "a.jpg").metadata["gallery"]
        assert link == dg.MetadataValue.url(f"https://images.example.org/gallery/{image.id}")


def test_an_address_that_is_none_is_refused(make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(SettingsError, match=r"IMGFLOW_PUBLIC_URL.*https://"):
        make_settings(public_url="images.example.org")


def test_a_run_that_takes_its_time_says_how_far_it_is(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "FIRST_SECONDS", 0.0)
    for number in range(4):
        put(project, f"{number}.jpg", jpeg(seed=number))
    (run,) = project.run_requests(project.tick())
    lines = [
        entry.user_message
        for entry in project.instance.all_logs(run.run_id)
        if "a second" in entry.user_message
    ]
    assert re.fullmatch(r"1 of 4 images \(25 %\), \S+ a second, \d+ s to go\.", lines[0])
    assert len(lines) <= 3


def test_every_asset_page_says_what_it_is_whose_and_where_to_look(
    make_settings: Callable[..., Settings],
) -> None:
    defs = build_definitions(make_settings(watermark_text="proof"))
    for spec in defs.resolve_all_asset_specs():
        assert spec.description, spec.key
        assert "](" not in spec.description, "the catalog's list shows Markdown as it is"
        assert f"/?kind={spec.key.path[0]}" in str(spec.metadata["gallery"].value)
        assert spec.owners == ["team:imgflow"]
        assert spec.kinds
        assert (spec.code_version is None) is (spec.key.path[-1] == "source")
        assert isinstance(spec.metadata["gallery"], dg.UrlMetadataValue)


def test_the_tables_have_their_columns(one: Project) -> None:
    with one.catalog.engine.connect() as connection:
        there = {
            row.column_name: row.data_type
            for row in connection.exec_driver_sql(
                "SELECT column_name, data_type FROM information_schema.columns "
                "WHERE table_name = 'images' AND table_schema = current_schema()"
            )
        }
    for kind in ("photo", "depth"):
        (spec,) = (
            spec
            for spec in one.definitions.resolve_all_asset_specs()
            if spec.key == dg.AssetKey([kind, "metadata"])
        )
        columns = spec.metadata["dagster/column_schema"].columns
        assert {column.name: column.type for column in columns} == there
        assert all(column.description for column in columns)
        assert spec.metadata["dagster/table_name"] == "images"
