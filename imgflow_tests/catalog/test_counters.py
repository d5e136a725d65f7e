"""Counters of runs: exact whoever adds at the same time, and never in anybody's way."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres.counters import Counters, Series, bucket_of, cumulated, series
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog

NOOPS = series("noops_total", kind="photo")
BYTES = series("bytes_total", kind="depth", odd='"\\\n')
WAIT = "wait_seconds"


@pytest.fixture
def counters(catalog: PostgresCatalog) -> Counters:
    return Counters(catalog.engine, catalog.source)


def test_counts_add_up_and_keep_their_labels(counters: Counters) -> None:
    counters.add({NOOPS: 2, BYTES: 2**40})
    counters.add({NOOPS: 1, BYTES: 0.5})
    assert counters.read() == {NOOPS: 3, BYTES: 2**40 + 0.5}


def test_the_order_of_labels_makes_no_other_series(counters: Counters) -> None:
    counters.add({series("x_total", a="1", b="2"): 1})
    counters.add({series("x_total", b="2", a="1"): 1})
    assert list(counters.read().values()) == [2]


def test_every_source_has_counters_of_its_own(catalog: PostgresCatalog, counters: Counters) -> None:
    counters.add({NOOPS: 2})
    assert Counters(catalog.engine, "s3://other/").read() == {}


def test_runs_that_count_at_once_neither_deadlock_nor_lose_anything(
    catalog: PostgresCatalog,
) -> None:
    every = [series("x_total", outcome=str(number)) for number in range(20)]

    def flushes(seed: int) -> None:
        order = random.Random(seed)
        engine = make_engine(catalog.engine.url.render_as_string(hide_password=False))
        for _ in range(50):
            counts = dict.fromkeys(order.sample(every, len(every)), 1.0)
            Counters(engine, catalog.source).add(counts)
        engine.dispose()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(flushes, range(4)))
    assert Counters(catalog.engine, catalog.source).read() == dict.fromkeys(every, 200)


def test_a_flush_is_one_statement_and_one_without_counts_is_none(
    catalog: PostgresCatalog, counters: Counters
) -> None:
    sent: list[str] = []

    @sa.event.listens_for(catalog.engine, "before_cursor_execute")
    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement.split(maxsplit=1)[0])

    counters.add({NOOPS: 0})
    counters.add({})
    assert sent == []
    counters.add({series("x_total", outcome=str(number)): 1.0 for number in range(50)})
    assert sent == ["SET", "INSERT"]


def test_a_database_that_is_away_costs_counts_and_no_run(caplog: pytest.LogCaptureFixture) -> None:
    engine = make_engine("postgresql://nobody@127.0.0.1:1/none")
    Counters(engine, "file:///source/").add({NOOPS: 1})
    assert "not in the metrics" in caplog.text


def observed(values: list[float], bounds: tuple[float, ...]) -> dict[Series, float]:
    counts: dict[Series, float] = {}
    for value in values:
        one = bucket_of(WAIT, value, bounds, kind="photo")
        counts[one] = counts.get(one, 0) + 1
    return counts


def test_a_histogram_counts_what_is_not_above_each_bound() -> None:
    counts = observed([0, 1, 1.5, 5, 99], (1, 5))
    counts[series(f"{WAIT}_sum", kind="photo")] = 106.5
    expected = [("1.0", 2), ("5.0", 4), ("+Inf", 5)]
    assert cumulated(counts, WAIT, (1, 5), kind="photo") == (expected, 106.5)
    assert cumulated(counts, WAIT, (1, 5), kind="depth")[0][-1] == ("+Inf", 0)


def test_other_bounds_in_a_later_version_still_give_a_histogram_that_never_falls() -> None:
    counts = observed([0.5, 1.5, 4, 99], (1, 5))
    buckets, _ = cumulated(counts, WAIT, (2, 5, 60), kind="photo")
    assert buckets == [("1.0", 1), ("2.0", 1), ("5.0", 3), ("60.0", 3), ("+Inf", 4)]
