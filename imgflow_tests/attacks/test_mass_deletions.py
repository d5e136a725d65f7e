"""That something is not seen is no reason to delete much: a location, a database, a bucket gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from imgflow.catalog.postgres.ownership import claim
from imgflow.catalog.postgres.ownership import stored as orphaned
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.errors import TooMany
from imgflow.orchestration.sensing.listing import Round, following, list_and_announce
from imgflow.orchestration.upkeep.reconcile import compare_outputs
from imgflow.settings.variables import OnDelete, Settings
from imgflow.store.folder.source_folder import FolderSource
from imgflow.store.location import parse_location
from imgflow.store.naming import MARKER, output_name
from imgflow.store.output_store import OutputStore, StoredOutput
from imgflow_tests.orchestration.project import Project

FILL = sa.text(
    """
    INSERT INTO images (source, key, kind, state, announced, announced_etag, announced_size,
        announced_last_modified, processed, outputs, updated_at)
    SELECT :source, key, 'photo', 'ready', 'e', 'e', 1, now(), 'e',
        jsonb_build_object('thumbnail', jsonb_build_object('name', name)), now() - interval '1 day'
    FROM unnest(CAST(:keys AS text[]), CAST(:names AS text[])) AS made(key, name)
    """
)


def name_of(catalog: PostgresCatalog, key: str, fingerprint: str = "f") -> str:
    return output_name("thumbnail", catalog.source, key, fingerprint, ".jpg")


def fill(catalog: PostgresCatalog, outputs: OutputStore, count: int) -> list[str]:
    """Make ready images with an output each, and return the names of these."""
    keys = [f"{number:04}.jpg" for number in range(count)]
    names = [name_of(catalog, key) for key in keys]
    with catalog.engine.begin() as connection:
        connection.execute(FILL, {"source": catalog.source, "keys": keys, "names": names})
    for name in names:
        outputs.put(name, b"made", "image/jpeg")
    return names


@pytest.fixture(params=["folder", "s3"])
def outputs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OutputStore]:
    is_folder = request.param == "folder"
    url = (
        (tmp_path / "out").as_uri()
        if is_folder
        else f"s3://{request.getfixturevalue('bucket')}/out"
    )
    return OutputStore(parse_location(url, setting="TEST"))


@pytest.fixture(autouse=True)
def _everything_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 says itself when an object was written."""
    monkeypatch.setattr("imgflow.orchestration.upkeep.reconcile.ORPHAN_AGE", timedelta(minutes=-1))


def stored(outputs: OutputStore) -> set[str]:
    return {output.name for output in outputs.names()}


def test_only_own_orphans_go_and_nothing_beside_them(
    catalog: PostgresCatalog, outputs: OutputStore
) -> None:
    kept = fill(catalog, outputs, 3)
    orphan = name_of(catalog, "0001.jpg", "of an older upload")
    other = output_name("thumbnail", "s3://other/", "0001.jpg", "f", ".jpg")
    part = orphan.split("/")[1]
    theirs = [
        other,
        "thumbnail/holiday/mine.jpg",
        "proof/contract.pdf",
        f"thumbnail/{part}/mine.jpg",
        f"thumbnail/{part}/0001.jpg/@1.jpg",
        f"thumbnail/0{part}/0001.jpg/{orphan.rsplit('/', maxsplit=1)[1]}",
        f"thumbnail/{part}0/0001.jpg/{orphan.rsplit('/', maxsplit=1)[1]}",
    ]
    for name in (orphan, *theirs):
        outputs.put(name, b"theirs", "image/jpeg")

    assert compare_outputs(catalog, outputs, allow_many=False) == (0, 1)

    assert stored(outputs) == {*kept, *theirs}
    assert [outputs.get(name) for name in theirs] == [b"theirs"] * len(theirs)


def test_an_emptied_database_deletes_no_output_before_a_person_says_so(
    catalog: PostgresCatalog, outputs: OutputStore
) -> None:
    names = fill(catalog, outputs, 101)
    with catalog.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM images"))

    with pytest.raises(TooMany, match="101 of 101 outputs") as stopped:
        compare_outputs(catalog, outputs, allow_many=False)

    assert stored(outputs) == set(names)
    assert outputs.location.url in str(stopped.value)
    assert names[0] in str(stopped.value)
    assert "allow_many: true" in str(stopped.value)
    assert compare_outputs(catalog, outputs, allow_many=True) == (0, 101)
    assert stored(outputs) == set()


def test_an_unmounted_output_location_takes_nothing_from_the_rows(
    catalog: PostgresCatalog, tmp_path: Path
) -> None:
    outputs = OutputStore(parse_location((tmp_path / "out").as_uri(), setting="TEST"))
    fill(catalog, outputs, 101)
    empty = OutputStore(parse_location((tmp_path / "mount point").as_uri(), setting="TEST"))

    with pytest.raises(TooMany, match="101 of 101 ready images lack outputs"):
        compare_outputs(catalog, empty, allow_many=False)

    assert len(catalog.page(limit=200, state="ready")) == 101
    assert compare_outputs(catalog, outputs, allow_many=False) == (0, 0)


@pytest.mark.parametrize("on_delete", ["tombstone", "delete"])
@pytest.mark.parametrize("is_wrong", [False, True], ids=["emptied", "other bucket"])
def test_a_source_that_is_empty_or_another_takes_no_image_away(
    catalog: PostgresCatalog, tmp_path: Path, on_delete: OnDelete, is_wrong: bool
) -> None:
    outputs = OutputStore(parse_location((tmp_path / "out").as_uri(), setting="TEST"))
    names = fill(catalog, outputs, 110)
    folder = tmp_path / "source"
    folder.mkdir()
    if is_wrong:  # so that each page of the listing lacks a few images only
        for number in range(0, 110, 10):
            (folder / f"{number:04}.jpg.other").write_bytes(b"x")
    source = FolderSource(parse_location(folder.as_uri(), setting="TEST"), ())
    follow = following(catalog, source, lambda: outputs, on_delete)

    seen = list_and_announce(source, catalog, Round(), pages=1_000, follow=follow)

    assert "110 images are gone" in " ".join(seen.warnings)
    assert stored(outputs) == set(names)
    assert len(catalog.page(limit=200, state="ready")) == 110


def test_partitions_that_no_row_names_stay_where_they_are_many(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    project = Project(settings, instance)
    theirs = [f"theirs {number}.jpg" for number in range(101)]
    instance.add_dynamic_partitions("photos", theirs)

    failed = project.night("reconcile")

    assert "101 of 101 partitions of photos" in failed["reconcile"]
    assert set(instance.get_dynamic_partitions("photos")) == set(theirs)
    config = {"ops": {"reconcile_everything": {"config": {"allow_many": True}}}}
    assert project.night("reconcile", config=config) == {}
    assert not instance.get_dynamic_partitions("photos")


def test_another_database_at_the_same_location_deletes_nothing(
    make_settings: Callable[..., Settings],
    instance: dg.DagsterInstance,
    make_database: Callable[[], str],
) -> None:
    project = Project(make_settings(), instance)
    claim(project.catalog, project.outputs)
    names = fill(project.catalog, project.outputs, 3)

    other = Project(make_settings(database_url=make_database()), instance)
    assert "IMGFLOW_OUTPUT_URL" in other.night("reconcile")["reconcile"]
    # Another database for one run, which the launchpad let one set.
    resource = {"resources": {"catalog": {"config": {"database_url": make_database()}}}}
    with pytest.raises(dg.DagsterInvalidConfigError, match="database_url"):
        project.night("reconcile", config=resource)

    assert stored(project.outputs) == set(names)
    assert project.outputs.get(MARKER) is not None


def test_what_is_made_again_while_orphans_are_deleted_stays(catalog: PostgresCatalog) -> None:
    """After a restore, workers make what is called an orphan again, under the same names."""
    names = sorted(name_of(catalog, f"{number:04}.jpg") for number in range(4))
    before = datetime.now(UTC)
    with orphaned(catalog.engine, catalog.source) as found:
        found.add(StoredOutput(name, 1, before) for name in names)
        assert found.keep_orphans(before=before + timedelta(minutes=1)) == 4
        pages = found.orphans(2)
        deleted = next(pages)
        keys = [f"{number:04}.jpg" for number in (2, 3)]
        with catalog.engine.begin() as connection:
            connection.execute(
                FILL, {"source": catalog.source, "keys": keys, "names": sorted(names)[2:]}
            )
        deleted += [name for page in pages for name in page]
    assert deleted == names[:2]
