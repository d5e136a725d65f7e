"""Whether uploads are still seen: the last good tick of each sensor, and the last good run.

A sensor writes down itself how each tick ended, since Dagster calls a tick that could not list the
source *skipped*, as one that found nothing new. Whether somebody stopped it is Dagster's to say.
This is the one place that the API, `imgflow up`, `status`, `doctor` and the metrics ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from imgflow.catalog.connected import TEXT
from imgflow.catalog.database.engine import outages_in_words
from imgflow.catalog.storable import storable_text
from imgflow.settings.variables import Settings

# Dagster gives a tick a minute. After two of them without a good one, something is wrong: neither a
# large source, which is listed in parts, nor a busy machine takes as long.
SILENT_SECONDS = 120.0

# An answer that takes longer than this is none.
STATEMENT_SECONDS = 5

GOOD = sa.text(
    """
    INSERT INTO sensor_ticks (source, sensor, good_at, ended_at, due_at)
    VALUES (:source, :sensor, now(), now(), now() + make_interval(secs => :seconds))
    ON CONFLICT (source, sensor) DO UPDATE
    SET good_at = now(), ended_at = now(), due_at = excluded.due_at, trouble = NULL
    """
)
BAD = sa.text(
    """
    INSERT INTO sensor_ticks (source, sensor, ended_at, due_at, trouble)
    VALUES (:source, :sensor, now(), now() + make_interval(secs => :seconds), :trouble)
    ON CONFLICT (source, sensor) DO UPDATE SET ended_at = now(), trouble = excluded.trouble
    """
)
EXPECT = sa.text(
    """
    INSERT INTO sensor_ticks (source, sensor, ended_at, due_at)
    SELECT :source, name, now(), now() + make_interval(secs => :seconds)
    FROM unnest(:sensors) AS sensor(name)
    ON CONFLICT (source, sensor) DO UPDATE
    SET due_at = greatest(sensor_ticks.due_at, excluded.due_at)
    """
).bindparams(sa.bindparam("sensors", type_=TEXT))

HAS_DAGSTER = sa.text(
    "SELECT to_regclass('instigators') IS NOT NULL AND to_regclass('runs') IS NOT NULL"
)
SENSORS = sa.text(
    """
    SELECT d.name, d.is_on,
        extract(epoch FROM now() - t.good_at)::float AS good_seconds,
        extract(epoch FROM now() - t.due_at)::float AS overdue_seconds,
        extract(epoch FROM t.ended_at)::float AS ended_at, t.trouble
    FROM (
        SELECT instigator_body::jsonb #>> '{origin,job_name}' AS name,
            bool_or(status <> 'STOPPED') AS is_on
        FROM instigators WHERE instigator_type = 'SENSOR' GROUP BY 1
    ) AS d
    LEFT JOIN sensor_ticks AS t ON t.sensor = d.name AND t.source = :source
    WHERE d.name = ANY(:sensors) ORDER BY d.name
    """
).bindparams(sa.bindparam("sensors", type_=TEXT))

# Of Dagster's index on status and time, the last entry.
LAST_RUN = sa.text(
    """
    SELECT extract(epoch FROM now())::float - end_time FROM runs
    WHERE status = 'SUCCESS' ORDER BY update_timestamp DESC LIMIT 1
    """
)


@dataclass(frozen=True)
class SensorState:
    """A sensor that Dagster knows.

    Attributes:
        name: of the sensor.
        is_on: nobody stopped it.
        good_seconds: since its last good tick; None before the first.
        overdue_seconds: for how long a good tick has been missing; negative while one is expected.
        ended_at: Unix time at which its last tick ended, good or not.
        trouble: what its last tick said, when that was not a good one.
    """

    name: str
    is_on: bool
    good_seconds: float | None
    overdue_seconds: float | None
    ended_at: float | None
    trouble: str | None

    @property
    def is_silent(self) -> bool:
        """Whether it should have had a good tick by now; one that somebody stopped should not."""
        return self.is_on and self.overdue_seconds is not None and self.overdue_seconds > 0

    def words(self) -> str:
        """When it last had a good tick, and why not since."""
        last = (
            "has never had a good tick"
            if self.good_seconds is None
            else f"had its last good tick {in_words(self.good_seconds)} ago"
        )
        return f"The sensor {self.name} {last}" + (f": {self.trouble}" if self.trouble else ".")


@dataclass(frozen=True)
class Pulse:
    """Whether uploads are seen and processed.

    Attributes:
        sensors: those that Dagster knows; none where it has never run.
        run_seconds: since a run last ended well; None before the first.
    """

    sensors: tuple[SensorState, ...] = ()
    run_seconds: float | None = None

    @property
    def silent(self) -> tuple[SensorState, ...]:
        """Sensors that are switched on and see nothing."""
        return tuple(sensor for sensor in self.sensors if sensor.is_silent)

    @property
    def tick_seconds(self) -> float | None:
        """Since the last good tick of any sensor."""
        known = [one.good_seconds for one in self.sensors if one.good_seconds is not None]
        return min(known, default=None)


def sensor_names(settings: Settings) -> tuple[str, ...]:
    """The sensors that look for uploads with these settings."""
    return ("arrivals", "notifications") if settings.sqs_queue_url else ("arrivals",)


def read_pulse(engine: sa.Engine, source: str, sensors: tuple[str, ...]) -> Pulse:
    """Ask once, without patience.

    Raises:
        Trouble: the database does not answer.
    """
    with outages_in_words(engine), engine.connect() as connection:
        connection.execute(sa.text(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'"))
        if not connection.execute(HAS_DAGSTER).scalar():
            return Pulse()
        rows = connection.execute(SENSORS, {"source": source, "sensors": list(sensors)})
        found = tuple(SensorState(**row) for row in rows.mappings())
        seconds = connection.execute(LAST_RUN).scalar()
    return Pulse(found, None if seconds is None else max(0.0, float(seconds)))


def expect_ticks(engine: sa.Engine, source: str, sensors: tuple[str, ...]) -> None:
    """Give sensors that now begin, after a night perhaps, their time for a first good tick."""
    with outages_in_words(engine), engine.begin() as connection:
        values = {"source": source, "sensors": list(sensors), "seconds": SILENT_SECONDS}
        connection.execute(EXPECT, values)


@contextmanager
def recorded_tick(
    engine: sa.Engine, source: str, sensor: str, interval_seconds: float
) -> Iterator[None]:
    """Write down how a tick ends; one that cannot even do that was not a good one.

    Raises:
        Trouble: the tick's own, or the database takes no row.
    """
    values = {
        "source": source,
        "sensor": sensor,
        "seconds": interval_seconds + SILENT_SECONDS,
    }
    try:
        yield
    except Exception as error:
        said = {**values, "trouble": storable_text(str(error)) or type(error).__name__}
        # What went wrong is raised below; the database may be what it was.
        with suppress(SQLAlchemyError), engine.begin() as connection:
            connection.execute(BAD, said)
        raise
    with outages_in_words(engine), engine.begin() as connection:
        connection.execute(GOOD, values)


def in_words(seconds: float) -> str:
    """A time for people."""
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{seconds:.0f} seconds"
