"""One output location belongs to one catalogue."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres import ownership
from imgflow.catalog.postgres.ownership import claim, identity, owner_of
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.doctor.store_checks import check_owner
from imgflow.errors import NotOurs, Trouble
from imgflow.settings.variables import Settings
from imgflow.store.location import parse_location
from imgflow.store.naming import MARKER
from imgflow.store.output_store import OutputStore
from imgflow_tests.policies import User, allow, document

MakeCatalog = Callable[[str], PostgresCatalog]


@pytest.fixture
def make_catalog() -> Iterator[MakeCatalog]:
    made: list[PostgresCatalog] = []

    def make(url: str) -> PostgresCatalog:
        made.append(PostgresCatalog(make_engine(url), "file:///source/"))
        made[-1].migrate()
        return made[-1]

    yield make
    for catalog in made:
        catalog.engine.dispose()


@pytest.fixture(params=["folder", "s3"])
def open_location(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], OutputStore]:
    is_folder = request.param == "folder"
    bucket = "" if is_folder else request.getfixturevalue("bucket")
    url = (tmp_path / "out").as_uri() if is_folder else f"s3://{bucket}/out"
    return lambda: OutputStore(parse_location(url, setting="TEST"))


def test_the_first_catalogue_has_the_location_and_others_are_refused(
    open_location: Callable[[], OutputStore],
    make_catalog: MakeCatalog,
    make_database: Callable[[], str],
) -> None:
    first, second = make_catalog(make_database()), make_catalog(make_database())
    outputs = open_location()
    assert owner_of(outputs) is None
    claim(first, outputs)
    claim(first, open_location())
    marker = outputs.get(MARKER)
    for _ in range(2):
        with pytest.raises(NotOurs) as refused:
            claim(second, outputs)
    said = str(refused.value)
    assert all(part in said for part in (outputs.location.url, identity(first).catalogue, MARKER))
    assert outputs.get(MARKER) == marker

    outputs.delete([MARKER])  # as who takes over does it, by hand
    claim(second, outputs)
    claim(first, outputs)  # it relies on its last look for a minute
    with pytest.raises(NotOurs):
        claim(first, outputs, afresh=True)


def test_of_many_that_start_at_once_one_has_the_location(
    open_location: Callable[[], OutputStore],
    make_catalog: MakeCatalog,
    make_database: Callable[[], str],
) -> None:
    catalogs = [make_catalog(make_database()) for _ in range(4)]
    together = threading.Barrier(len(catalogs))
    refused: list[PostgresCatalog] = []

    def start(catalog: PostgresCatalog) -> None:
        outputs = open_location()
        together.wait()
        try:
            claim(catalog, outputs)
        except NotOurs:
            refused.append(catalog)

    threads = [threading.Thread(target=start, args=(catalog,)) for catalog in catalogs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == len(catalogs) - 1
    (winner,) = (catalog for catalog in catalogs if catalog not in refused)
    owner = owner_of(open_location())
    assert owner is not None
    assert owner.is_same(identity(winner))


def test_a_copy_of_the_database_is_not_its_original(
    tmp_path: Path, make_catalog: MakeCatalog, make_database: Callable[[], str]
) -> None:
    url = make_database()
    original = make_catalog(url)
    outputs = OutputStore(parse_location(tmp_path.as_uri(), setting="TEST"))
    claim(original, outputs)
    original.engine.dispose()
    copy_url = make_database()
    name, template = (sa.make_url(one).database for one in (copy_url, url))
    admin = sa.create_engine(
        sa.make_url(url).set(database="postgres"), isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}")
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    admin.dispose()
    copy = make_catalog(copy_url)
    assert identity(copy).catalogue == identity(original).catalogue
    with pytest.raises(NotOurs, match="is a copy of"):
        claim(copy, outputs)
    claim(original, outputs, afresh=True)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"catalogue": "x"}', b"\xff"])
def test_a_marker_that_says_nothing_is_trouble_and_stays(
    tmp_path: Path, catalog: PostgresCatalog, body: bytes
) -> None:
    outputs = OutputStore(parse_location(tmp_path.as_uri(), setting="TEST"))
    outputs.put_first(MARKER, body)
    with pytest.raises(Trouble, match=MARKER):
        claim(catalog, outputs)
    assert outputs.get(MARKER) == body


def test_a_marker_that_cannot_be_read_is_no_missing_one(
    tmp_path: Path, catalog: PostgresCatalog
) -> None:
    outputs = OutputStore(parse_location(tmp_path.as_uri(), setting="TEST"))
    (tmp_path / MARKER).mkdir()
    with pytest.raises(Trouble):
        claim(catalog, outputs)
    assert (tmp_path / MARKER).is_dir()


@pytest.mark.parametrize("may", [["s3:PutObject"], ["s3:PutObject", "s3:ListBucket"]])
def test_without_the_right_to_read_the_marker_no_location_is_taken(
    *,
    s3: Any,
    bucket: str,
    user: User,
    catalog: PostgresCatalog,
    monkeypatch: pytest.MonkeyPatch,
    may: list[str],
) -> None:
    s3.put_object(Bucket=bucket, Key=f"out/{MARKER}", Body=b"of another")
    statements = [
        allow("s3:PutObject", bucket=bucket, below="out/"),
        allow("s3:ListBucket", bucket=bucket),
    ]
    user.may(document(*statements[: len(may)]))
    for name, value in user.variables().items():
        monkeypatch.setenv(name, value)
    outputs = OutputStore(parse_location(f"s3://{bucket}/out", setting="TEST"))
    with pytest.raises(Trouble, match=r"imgflow\.json.*s3:GetObject"):
        claim(catalog, outputs)
    assert s3.get_object(Bucket=bucket, Key=f"out/{MARKER}")["Body"].read() == b"of another"


def test_a_process_looks_once_a_minute(
    tmp_path: Path, catalog: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = OutputStore(parse_location(tmp_path.as_uri(), setting="TEST"))
    looks: list[OutputStore] = []

    def look(store: OutputStore) -> ownership.Owner | None:
        looks.append(store)
        return owner_of(store)

    monkeypatch.setattr(ownership, "owner_of", look)
    claim(catalog, outputs)
    assert json.loads(outputs.get(MARKER) or b"")["catalogue"] == identity(catalog).catalogue
    looks.clear()
    for _ in range(5):
        claim(catalog, outputs)
    assert not looks
    monkeypatch.setattr(ownership, "SECONDS", -1.0)
    claim(catalog, outputs, afresh=True)
    claim(catalog, outputs)
    assert len(looks) == 2


def test_before_a_migration_the_doctor_still_knows_its_own_location(
    make_settings: Callable[..., Settings], catalog: PostgresCatalog, tmp_path: Path
) -> None:
    """It would advise to delete the marker."""
    location = (tmp_path / "own").as_uri()
    settings = make_settings(
        database_url=catalog.engine.url.render_as_string(hide_password=False), output_url=location
    )
    claim(catalog, settings.stores.open_outputs())
    with catalog.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE imgflow_schema_version SET version_num = '0010'")
    (found,) = check_owner(settings, settings.stores)
    assert (found.state, "belongs to this catalogue" in found.text) == ("ok", True)
