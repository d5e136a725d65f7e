from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.postgres.sensing import (
    SILENT_SECONDS,
    Pulse,
    SensorState,
    expect_ticks,
    in_words,
    read_pulse,
    recorded_tick,
)
from imgflow.errors import Trouble
from imgflow_tests.dagster_tables import add_runs, add_sensor

SOURCE = "file:///in/"
LATER = sa.text(
    """
    UPDATE sensor_ticks SET good_at = good_at - make_interval(secs => :s),
        ended_at = ended_at - make_interval(secs => :s),
        due_at = due_at - make_interval(secs => :s)
    """
)


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    made = make_engine(database_url)
    PostgresCatalog(made, SOURCE).migrate()
    yield made
    made.dispose()


@pytest.fixture
def dagster(engine: sa.Engine) -> sa.Engine:
    """A database in which Dagster's daemon has seen the sensor."""
    add_sensor(engine)
    return engine


def only(engine: sa.Engine) -> SensorState:
    (sensor,) = read_pulse(engine, SOURCE, ("arrivals",)).sensors
    return sensor


def tick(engine: sa.Engine, trouble: Exception | None = None) -> None:
    with recorded_tick(engine, SOURCE, "arrivals", 1.0):
        if trouble:
            raise trouble


def later(engine: sa.Engine, seconds: float) -> None:
    """Let time pass for what is written down."""
    with engine.begin() as connection:
        connection.execute(LATER, {"s": seconds})


def test_where_dagster_never_ran_nothing_is_missing(engine: sa.Engine) -> None:
    assert read_pulse(engine, SOURCE, ("arrivals",)) == Pulse()
    tick(engine)
    later(engine, 10 * SILENT_SECONDS)
    assert read_pulse(engine, SOURCE, ("arrivals",)).silent == ()


def test_a_sensor_is_silent_once_a_good_tick_is_overdue(dagster: sa.Engine) -> None:
    assert not only(dagster).is_silent, "nobody has said yet that it should have begun"
    tick(dagster)
    later(dagster, SILENT_SECONDS)
    assert not only(dagster).is_silent
    later(dagster, 30)
    found = only(dagster)
    assert found.is_silent
    assert found.words() == "The sensor arrivals had its last good tick 2 minutes ago."
    tick(dagster)
    assert not only(dagster).is_silent


def test_ticks_that_fail_each_time_are_none_and_say_why(dagster: sa.Engine) -> None:
    tick(dagster)
    later(dagster, SILENT_SECONDS + 30)
    with pytest.raises(Trouble):
        tick(dagster, Trouble("S3 does not answer."))
    found = only(dagster)
    assert found.is_silent
    assert found.words().endswith("ago: S3 does not answer.")
    tick(dagster)
    assert only(dagster).trouble is None


@pytest.mark.parametrize("name", ["\udcff", "\0"])
def test_a_tick_says_why_it_failed_whatever_its_words_are(dagster: sa.Engine, name: str) -> None:
    tick(dagster)
    with pytest.raises(OSError, match="no room for"):
        tick(dagster, OSError(f"no room for {name}"))
    assert "no room for" in str(only(dagster).trouble)


def test_a_sensor_whose_first_ticks_fail_is_silent_after_the_same_time(dagster: sa.Engine) -> None:
    for _ in range(2):
        with pytest.raises(Trouble):
            tick(dagster, Trouble("S3 does not answer."))
        later(dagster, SILENT_SECONDS / 2 + 10)
    assert only(dagster).is_silent
    assert "has never had a good tick: S3" in only(dagster).words()


def test_a_sensor_that_somebody_stopped_is_not_silent(dagster: sa.Engine) -> None:
    tick(dagster)
    later(dagster, 10 * SILENT_SECONDS)
    with dagster.begin() as connection:
        connection.execute(sa.text("UPDATE instigators SET status = 'STOPPED'"))
    assert not only(dagster).is_on
    assert not only(dagster).is_silent


def test_after_a_night_it_has_its_time_for_a_first_tick(dagster: sa.Engine) -> None:
    tick(dagster)
    later(dagster, 40_000)
    assert only(dagster).is_silent
    expect_ticks(dagster, SOURCE, ("arrivals",))
    assert not only(dagster).is_silent
    later(dagster, SILENT_SECONDS + 5)
    assert only(dagster).is_silent


def test_the_last_run_that_went_well_counts(dagster: sa.Engine) -> None:
    assert read_pulse(dagster, SOURCE, ("arrivals",)).run_seconds is None
    add_runs(dagster)
    assert read_pulse(dagster, SOURCE, ()).run_seconds == pytest.approx(90, abs=5)


def test_times_are_in_words() -> None:
    assert [in_words(seconds) for seconds in (5, 119, 120, 7_200, 200_000)] == [
        "5 seconds",
        "119 seconds",
        "2 minutes",
        "2 hours",
        "2 days",
    ]
