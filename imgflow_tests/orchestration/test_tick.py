"""What a tick costs over what is known, and that rounds of ticks miss nothing of a large source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgflow.catalog.database import engine
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.postgres.uploads import Comparing
from imgflow.errors import Trouble
from imgflow.orchestration.sensing import listing
from imgflow.orchestration.sensing.listing import Listed, Round, list_and_announce
from imgflow.store.config import StoreConfig
from imgflow.store.folder.source_folder import FolderSource
from imgflow.store.location import parse_location
from imgflow.store.objects import Page, Source
from imgflow_tests.catalog.uploads import row
from imgflow_tests.orchestration.project import Project

PAGE = 5


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE_OBJECTS", PAGE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


@pytest.fixture
def source(folder: Path) -> FolderSource:
    return FolderSource(parse_location(folder.as_uri(), setting="TEST"))


def put(folder: Path, *keys: str, body: bytes = b"x") -> None:
    for key in keys:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(body)


def names(count: int) -> list[str]:
    return [f"{number:03}.jpg" for number in range(count)]


def tick(
    source: Source, catalog: PostgresCatalog, start: Round | None = None, *, pages: int = 1_000
) -> Listed:
    """A tick that marks what is gone, as the default setting does."""

    def follow(missing: Any) -> None:
        gone = catalog.by_keys([key for key in missing if source.stat(key) is None])
        catalog.mark_gone([image.id for image in gone.values()])

    return list_and_announce(source, catalog, start or Round(), pages=pages, follow=follow)


def versions(catalog: PostgresCatalog) -> list[tuple[Any, ...]]:
    """Every row, with the transaction that wrote it last."""
    with catalog.engine.connect() as connection:
        return [tuple(r) for r in connection.execute(sa.text("SELECT xmin::text, * FROM images"))]


@contextmanager
def statements(catalog: PostgresCatalog) -> Iterator[list[str]]:
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    sa.event.listen(catalog.engine, "before_cursor_execute", note)
    yield sent
    sa.event.remove(catalog.engine, "before_cursor_execute", note)


def test_a_page_of_known_uploads_costs_one_statement_and_writes_nothing(
    folder: Path, source: FolderSource, catalog: PostgresCatalog
) -> None:
    put(folder, *names(22))
    assert len(tick(source, catalog).new) == 22
    before = versions(catalog)
    with statements(catalog) as sent:
        seen = tick(source, catalog)
    assert (seen.listed, seen.new, seen.changed) == (22, [], [])
    assert len(sent) == 5, "one a page"
    assert all(statement.split()[0] == "SELECT" for statement in sent)
    assert versions(catalog) == before


def test_only_a_page_with_a_difference_is_sent_as_a_whole(
    folder: Path, source: FolderSource, catalog: PostgresCatalog
) -> None:
    put(folder, *names(22))
    tick(source, catalog)
    put(folder, "012.jpg", body=b"other")
    with statements(catalog) as sent:
        seen = tick(source, catalog)
    assert seen.changed == [row(catalog, "012.jpg").id]
    assert len([statement for statement in sent if "unnest" in statement]) == 1


def test_the_same_holds_for_a_bucket(
    bucket: str, s3: Any, catalog: PostgresCatalog, tmp_path: Path
) -> None:
    keys = ["a b+c.jpg", "a/ü.csv", "a\n.jpg", "deep//er/ü.jpg", "%41.jpg", "😀.jpg", *names(4)]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=f"in/{key}", Body=key.encode())
    s3.put_object(Bucket=bucket, Key="in/a/", Body=b"")
    source = StoreConfig(f"s3://{bucket}/in", tmp_path.as_uri()).open_source()
    assert len(tick(source, catalog).new) == len(keys)
    before = versions(catalog)
    with statements(catalog) as sent:
        seen = tick(source, catalog)
    assert (seen.listed, seen.new, seen.changed) == (len(keys), [], [])
    assert len(sent) == 3
    assert versions(catalog) == before
    s3.put_object(Bucket=bucket, Key="in/😀.jpg", Body=b"other")
    s3.delete_object(Bucket=bucket, Key="in/000.jpg")
    assert tick(source, catalog).changed == [row(catalog, "😀.jpg").id]
    assert row(catalog, "000.jpg").gone_at is not None


def test_a_source_larger_than_a_tick_is_covered_in_rounds(
    folder: Path, source: FolderSource, catalog: PostgresCatalog
) -> None:
    put(folder, *names(23))
    place, seen = Round(), []
    for _ in range(3):
        part = tick(source, catalog, place, pages=2)
        place = Round.from_cursor(part.next.cursor())
        seen.append(part.listed)
    assert seen == [10, 10, 3]
    assert place == Round(), "the next round begins"
    assert len(catalog.page(limit=100)) == 23


class Changing:
    """A source that someone changes between its pages."""

    def __init__(self, source: FolderSource, change: Callable[[Page], None]) -> None:
        self._source = source
        self._change = change
        self.location = source.location
        self.stat = source.stat

    def list_page(self, start_after: str | None, limit: int) -> Page:
        page = self._source.list_page(start_after, limit)
        self._change(page)
        return page


def test_what_changes_during_a_round_is_seen_by_the_next_one_at_the_latest(
    folder: Path, source: FolderSource, catalog: PostgresCatalog
) -> None:
    put(folder, *names(20))
    first = tick(source, catalog, pages=2)
    cursor = first.next.resume_after
    assert cursor == "009.jpg"
    put(folder, "004-before.jpg", "012-behind.jpg")
    (folder / cursor).unlink()
    (folder / "015.jpg").unlink()
    later = FolderSource(source.location)  # as one whose walk has grown old reads the folder again
    rest = tick(later, catalog, first.next)
    assert rest.next == Round()
    assert row(catalog, "012-behind.jpg").state == "pending"
    assert row(catalog, cursor).gone_at is None, "its page has passed"
    assert "015.jpg" not in catalog.by_keys(["015.jpg"])

    (new,) = tick(source, catalog).new
    assert new == row(catalog, "004-before.jpg").id
    assert row(catalog, cursor).gone_at is not None


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "remove", "tick"]), st.integers(0, 30)), max_size=40
    )
)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_round_after_the_last_change_leaves_the_catalogue_as_the_source_is(
    steps: list[tuple[str, int]],
    catalog: PostgresCatalog,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("in")
    catalog = PostgresCatalog(catalog.engine, folder.as_uri())
    source = FolderSource(parse_location(folder.as_uri(), setting="TEST"))
    place = Round()
    for step, number in steps:
        key = f"{number:03}.jpg"
        if step == "put":
            put(folder, key, body=bytes(number))
        elif step == "remove":
            (folder / key).unlink(missing_ok=True)
        else:
            place = tick(source, catalog, place, pages=1).next
    while place != Round():
        place = tick(source, catalog, place, pages=1).next
    tick(source, catalog)
    there = {upload.key: upload.identity for upload in source.list_page(None, 100).objects}
    rows = catalog.page(limit=100)
    assert {image.key: image.announced for image in rows if image.gone_at is None} == there
    with statements(catalog) as sent:
        tick(source, catalog)
    assert len(sent) == max(1, -(-len(there) // PAGE) + (len(there) % PAGE == 0))


def test_a_page_is_listed_while_the_database_looks_at_the_one_before(
    folder: Path, source: FolderSource, catalog: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, *names(12))
    happened: list[str] = []
    knows = Comparing.knows

    def slow(self: Comparing, after: str | None, until: str | None, digest: Any) -> bool:
        while len(happened) < (2 if after is None else 3):
            assert len(happened) >= 1
        return knows(self, after, until, digest)

    monkeypatch.setattr(Comparing, "knows", slow)
    changing = Changing(source, lambda page: happened.append(page.objects[0].key))
    tick(changing, catalog)  # type: ignore[arg-type]
    assert happened == ["000.jpg", "005.jpg", "010.jpg"]


def test_a_connection_that_breaks_between_two_pages_is_replaced(
    folder: Path, source: FolderSource, catalog: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, *names(12))
    tick(source, catalog)
    monkeypatch.setattr(engine, "RETRY_SECONDS", (0.0, 0.0, 0.0))

    def end(page: Page) -> None:
        if page.objects[0].key != "000.jpg":
            with catalog.engine.connect() as connection:
                connection.execute(
                    sa.text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                )

    seen = tick(Changing(source, end), catalog)  # type: ignore[arg-type]
    assert (seen.listed, seen.new, seen.changed) == (12, [], [])


def test_nothing_is_listed_beyond_the_pages_of_a_tick(
    folder: Path, source: FolderSource, catalog: PostgresCatalog
) -> None:
    put(folder, *names(30))
    pages: list[Page] = []
    tick(Changing(source, pages.append), catalog, pages=3)  # type: ignore[arg-type]
    assert len(pages) == 3


def test_when_the_source_fails_midway_what_was_listed_is_kept_and_the_failure_told(
    folder: Path, source: FolderSource, catalog: PostgresCatalog
) -> None:
    put(folder, *names(12))

    def fail(page: Page) -> None:
        if page.objects[0].key == "010.jpg":
            raise Trouble("away")

    with pytest.raises(Trouble, match="away"):
        tick(Changing(source, fail), catalog)  # type: ignore[arg-type]
    assert len(catalog.page(limit=100)) == 10


def test_an_idle_tick_asks_as_many_questions_however_much_is_known(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE_OBJECTS", 1_000)
    folder = project.source.location.folder
    project.tick()  # the first one also looks at the schema
    asked = []
    for count in (3, 300):
        put(folder, *names(count))
        tick(project.source, project.catalog)
        with project.catalog.engine.begin() as connection:
            connection.execute(sa.text("UPDATE images SET state = 'ready', processed = announced"))
        sent: list[str] = []

        def note(_c: object, _u: object, statement: str, *_: object, to: list[str] = sent) -> None:
            to.append(statement)

        sa.event.listen(sa.Engine, "before_cursor_execute", note)
        try:
            assert not project.tick().run_requests
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", note)
        asked.append(len(sent))
    assert asked[0] == asked[1] <= 20
