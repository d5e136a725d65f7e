"""With 100,000 rows every statement still finds its rows through an index."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres import counters
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.store.objects import Digest
from imgflow_tests.catalog.uploads import upload

SOURCE = "file:///source/"
FILL = """
INSERT INTO images (source, key, kind, state, announced, announced_etag, announced_size,
    announced_last_modified, processed, outputs, in_partitions)
SELECT 'file:///source/', 'photos/' || lpad(n::text, 6, '0') || '.jpg',
    CASE WHEN n % 50 = 0 THEN 'depth' ELSE 'photo' END,
    CASE WHEN n % 1000 = 0 THEN 'pending' WHEN n % 100 = 7 THEN 'rejected' ELSE 'ready' END,
    'e1/10/20260801T120000Z', 'e1', 10, '2026-08-01 12:00:00+00', 'e1/10/20260801T120000Z',
    '{"resized": {"name": "array"}}', n % 10 = 7
FROM generate_series(1, 100000) AS n
"""
CHUNKS = """
INSERT INTO depth_chunks SELECT i, 'array', c, c * 512, 512, c * 51.2, c * 51.2 + 51.1, '', ''
FROM generate_series(51, 100) AS i, generate_series(0, 399) AS c
"""


@pytest.fixture(scope="module")
def filled(postgres: EmbeddedPostgres) -> Iterator[PostgresCatalog]:
    """One database of 100,000 images for all tests here, which change nothing in it."""
    admin = sa.create_engine(postgres.url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text("CREATE DATABASE plans"))
    engine = make_engine(postgres.url.replace("/imgflow?", "/plans?"))
    catalog = PostgresCatalog(engine, SOURCE)
    catalog.migrate()
    with engine.begin() as connection:
        connection.execute(sa.text(FILL))
        connection.execute(sa.text(CHUNKS))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE images, depth_chunks"))
    yield catalog
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(sa.text("DROP DATABASE plans WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def plans(filled: PostgresCatalog) -> Iterator[list[str]]:
    """The plans of the statements that a test has run."""
    plans: list[str] = []
    is_explaining = False

    def explain(
        connection: sa.Connection, _cursor: object, statement: str, values: object, *_: object
    ) -> None:
        nonlocal is_explaining
        if is_explaining or statement.startswith("SELECT 1"):
            return
        is_explaining = True
        rows = connection.exec_driver_sql(f"EXPLAIN (COSTS OFF) {statement}", values)  # type: ignore[arg-type]
        plans.append("\n".join(row[0] for row in rows))
        is_explaining = False

    sa.event.listen(filled.engine, "before_cursor_execute", explain)
    yield plans
    sa.event.remove(filled.engine, "before_cursor_execute", explain)


def assert_indexed(plans: list[str]) -> None:
    assert plans
    for plan in plans:
        assert not re.search(r"Seq Scan on (images|depth_chunks)", plan), plan
        assert re.search(r"Index.* Scan", plan), plan


def test_announcing_a_page(filled: PostgresCatalog, plans: list[str]) -> None:
    uploads = [upload(f"photos/{number:06}.jpg") for number in range(50_001, 51_001)]
    assert filled.announce(uploads).unchanged == 1_000
    assert_indexed(plans)


def test_comparing_a_page(filled: PostgresCatalog, plans: list[str]) -> None:
    uploads = [upload(f"photos/{number:06}.jpg") for number in range(50_001, 51_001)]
    shown = [text for found in uploads for text in (found.key, found.identity)]
    by_etag = [text for found in uploads for text in (found.key, found.etag)]
    after, until = "photos/050000.jpg", uploads[-1].key
    with filled.comparing() as known:
        assert known.knows(after, until, Digest.of("identity", shown))
        assert known.knows(after, until, Digest.of("etag", by_etag))
        assert not known.knows(after, until, Digest.of("identity", by_etag))
        assert not known.knows(after, "photos/051001.jpg", Digest.of("identity", shown))
        assert known.knows("photos/100000.jpg", None, Digest.of("identity", []))
    assert_indexed(plans)
    assert not [plan for plan in plans if "Sort" in plan], "the index has the order"


def test_looking_for_waiting_images(filled: PostgresCatalog, plans: list[str]) -> None:
    assert len(filled.waiting("depth", active=["a", "b"], most=50)) == 50
    assert len(filled.waiting("photo", active=[], most=50)) == 0
    assert_indexed(plans)


def test_pages_of_all_kinds(filled: PostgresCatalog, plans: list[str]) -> None:
    assert len(filled.page(limit=100)) == 100
    assert len(filled.page(limit=100, after_id=99_000, kind="photo")) == 100
    assert len(filled.page(limit=100, state="rejected", after_id=50_000)) == 100
    assert len(filled.page(limit=100, prefix="photos/0999")) == 100
    assert len(filled.page(limit=100, state="deleted")) == 0
    assert_indexed(plans)


def test_rows_by_id_and_key(filled: PostgresCatalog, plans: list[str]) -> None:
    assert len(filled.by_ids(range(1, 1_001))) == 1_000
    assert filled.by_id(5) is not None
    assert len(filled.by_keys([f"photos/{number:06}.jpg" for number in range(1, 1_001)])) == 1_000
    assert filled.oldest_pending() is not None
    assert filled.reasons() == {}
    assert len(filled.untouchable("photo", active=["batch"])) == 1_000
    assert not filled.has_requests()
    assert filled.same_size("photo", [1, 2, 3]) == {}
    assert_indexed(plans)


def test_the_images_that_changed_longest_ago_are_not_sorted_for(
    filled: PostgresCatalog, plans: list[str]
) -> None:
    assert len(filled.sealable("photo", most=10)) == 10
    assert_indexed(plans)
    assert not [plan for plan in plans if "Sort" in plan], "the index has the order"


@pytest.mark.parametrize("named", [{"of_id": 100, "of_key": None}, {"of_id": None}])
def test_a_frame(filled: PostgresCatalog, plans: list[str], named: dict[str, int | None]) -> None:
    with filled.engine.connect() as connection:
        source = connection.exec_driver_sql(
            "SELECT prosrc FROM pg_proc WHERE proname = 'depth_rows'"
        ).scalar_one()
        del plans[:]
        statement = source.partition("RETURN QUERY")[2].partition(";")[0]
        asked = {
            **{"of_source": SOURCE, "of_key": "photos/000100.jpg", "low": 10_000.0},
            **{"high": 10_050.0, "most_rows": 10**5, "most_pixels": None, "chunk_rows": 128},
            **named,
        }
        for name in asked:
            statement = re.sub(rf"(?<![\w.]){name}\b", f"%({name})s", statement)
        # With the index to its end, 200 chunks lie between the interval and the image's last one.
        rows = connection.exec_driver_sql(statement, asked).all()
    assert 1 <= len(rows) <= 2
    assert_indexed(plans)
    assert len(re.findall("Index Cond.*depth_max <= .*depth_max >= ", plans[0])) == 1


def test_assigning_and_recording(filled: PostgresCatalog, plans: list[str]) -> None:
    images = filled.page(limit=500, state="ready")
    del plans[:]
    filled.assign([image.id for image in images], "batch")  # none is pending: no row changes
    filled.note_trouble({image.id: "x" for image in images})
    assert_indexed(plans)


def test_what_a_scrape_asks_reads_no_row(filled: PostgresCatalog, plans: list[str]) -> None:
    with filled.engine.connect() as connection:
        rows = connection.execute(counters.COUNTS, {"source": SOURCE}).all()
        waited = connection.execute(counters.BACKLOG, {"source": SOURCE}).scalar()
    assert sum(row.count for row in rows) == 100_000
    assert waited is not None
    assert_indexed(plans)
    assert all("Index Only Scan" in plan for plan in plans)


def test_partitions_that_other_sources_need(filled: PostgresCatalog, plans: list[str]) -> None:
    keys = [f"photos/{number:06}.jpg" for number in range(7, 10_000, 10)]
    assert filled.needed_by_others("photo", keys) == set()
    assert filled.outside_partitions("photo", keys[:100]) == set()
    other = PostgresCatalog(filled.engine, "file:///another/")
    assert len(other.needed_by_others("photo", keys[:100])) == 100
    assert_indexed(plans)
