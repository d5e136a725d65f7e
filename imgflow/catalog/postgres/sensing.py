"""Whether uploads are seen: the last good tick of each sensor, the last good run, bad messages.

Sensors record how each tick ended, since Dagster calls a tick that could not list the source
*skipked*, like one that found nothing new. Only Dagster knows whether someone stopped a sensor.
This is the one place that the API, `imgflow up`, `status`, `doctor` and the metrics ask. The
messages are those of the queue that could not be read, kept for operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from imgflow.catalog.database.engine import TEXT, outages_in_words, retried
from imgflow.catalog.database.tables import metadata, storable_text
from imgflow.settings.variables import Settings

# Dagster allows a tick one minute. After two without a good tick something is wrong: a large
# source, which is listed in parts, or a busy machine does not take that long.
SILENT_SECONDS = 120.0

# A slower answer counts as none.
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

# Reads the last entry of Dagster's index on status and time.
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
        is_on: False if someone stopped it.
        good_seconds: Seconds since its last good tick; None before the first.
        overdue_seconds: Seconds since a good tick was due; negative if it is not due yet.
        ended_at: Unix time at which its last tick ended, good or not.
        trouble: Error message of its last tick; None if that was good.
    """

    name: str
    is_on: bool
    good_seconds: float | None
    overdue_seconds: float | None
    ended_at: float | None
    trouble: str | None

    @property
    def is_silent(self) -> bool:
        """Whether a good tick is overdue; never for a sensor that someone stopped."""
        return self.is_on and self.overdue_seconds is not None and self.overdue_seconds > 0

    def words(self) -> str:
        """Say when its last good tick was, and why there has been none since."""
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
        sensors: Sensors that Dagster knows; empty if it has never run.
        run_seconds: Seconds since the last run that succeeded; None before the first.
    """

    sensors: tuple[SensorState, ...] = ()
    run_seconds: float | None = None

    @property
    def silent(self) -> tuple[SensorState, ...]:
        """Sensors that are on but have no good ticks."""
        return tuple(sensor for sensor in self.sensors if sensor.is_silent)

    @property
    def tick_seconds(self) -> float | None:
        """Seconds since the last good tick of any sensor; None before the first."""
        known = [one.good_seconds for one in self.sensors if one.good_seconds is not None]
        return min(known, default=None)


def sensor_names(settings: Settings) -> tuple[str, ...]:
    """The sensors that look for uploads with these settings."""
    return ("arrivals", "notifications") if settings.sqs_queue_url else ("arrivals",)


def read_pulse(engine: sa.Engine, source: str, sensors: tuple[str, ...]) -> Pulse:
    """Read the pulse without retries.

    Raises:
        Trouble: The database does not answer.
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
    """Give sensors that start now, maybe after a night, time for their first good tick."""
    with outages_in_words(engine), engine.begin() as connection:
        values = {"source": source, "sensors": list(sensors), "seconds": SILENT_SECONDS}
        connection.execute(EXPECT, values)


@contextmanager
def recorded_tick(
    engine: sa.Engine, source: str, sensor: str, interval_seconds: float
) -> Iterator[None]:
    """Record how a tick ends; a tick that cannot be recorded is not a good one.

    Raises:
        Trouble: Raised by the tick, or the database cannot store the row.
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
        # The error of the tick is raised below; its cause may be the database.
        with suppress(SQLAlchemyError), engine.begin() as connection:
            connection.execute(BAD, said)
        raise
    with outages_in_words(engine), engine.begin() as connection:
        connection.execute(GOOD, values)


def in_words(seconds: float) -> str:
    """A duration in words."""
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{seconds:.0f} seconds"


# Messages of the queue that could not be read: kept for operators, in bounded number and size.


BODY_BYTES = 64 * 1024

# A queue that belongs to something else must not fill the database.
MOST_MESSAGES = 1_000

unreadable_messages = sa.Table(
    "unreadable_messages",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("source", sa.Text, nullable=False, comment="URL of the source it was meant for"),
    sa.Column(
        "message_id", sa.Text, nullable=False, comment="the queue's, same when it comes again"
    ),
    sa.Column(
        "received_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
    ),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False, comment="its first 64 KiB"),
    sa.UniqueConstraint("source", "message_id", name="unreadable_messages_message"),
)

KEEP = sa.text(
    """
    INSERT INTO unreadable_messages (source, message_id, reason, body)
    SELECT :source, message_id, reason, body
    FROM unnest(:message_ids, :reasons, :bodies) AS m(message_id, reason, body)
    ORDER BY message_id ON CONFLICT (source, message_id) DO NOTHING
    """
)
TRIM = sa.text(
    """
    DELETE FROM unreadable_messages WHERE source = :source AND id <= (
        SELECT id FROM unreadable_messages WHERE source = :source
        ORDER BY id DESC OFFSET :most LIMIT 1
    )
    """
)
TEXTS = sa.ARRAY(sa.Text)


@dataclass(frozen=True)
class UnreadableMessage:
    """A message that could not be read, and why."""

    message_id: str
    reason: str
    body: bytes


@dataclass(frozen=True)
class KeptMessage:
    """A row of the table."""

    message_id: str
    received_at: datetime
    reason: str
    body: str


class UnreadableMessages:
    """The unreadable messages of one source."""

    def __init__(self, engine: sa.Engine, source: str) -> None:
        self._engine = engine
        self._source = source

    def keep(self, messages: Sequence[UnreadableMessage]) -> None:
        """Store messages; redelivered ones are stored once."""
        if not messages:
            return
        statement = KEEP.bindparams(
            sa.bindparam("message_ids", [m.message_id for m in messages], TEXTS),
            sa.bindparam(
                "reasons", [_storable(m.reason.encode("utf-8", "replace")) for m in messages], TEXTS
            ),
            sa.bindparam("bodies", [_storable(m.body) for m in messages], TEXTS),
            source=self._source,
        )

        def write() -> None:
            with self._engine.begin() as connection:
                connection.execute(statement)
                connection.execute(TRIM, {"source": self._source, "most": MOST_MESSAGES})

        retried(self._engine, write)

    def count(self) -> int:
        """Number of messages that are kept."""
        query = (
            sa.select(sa.func.count())
            .select_from(unreadable_messages)
            .where(unreadable_messages.c.source == self._source)
        )

        def ask() -> int:
            with self._engine.connect() as connection:
                return connection.execute(query).scalar_one()

        return retried(self._engine, ask)

    def newest(self, limit: int) -> list[KeptMessage]:
        """The most recent messages, newest first."""
        m = unreadable_messages.c
        query = (
            sa.select(m.message_id, m.received_at, m.reason, m.body)
            .where(m.source == self._source)
            .order_by(m.id.desc())
            .limit(limit)
        )

        def ask() -> list[KeptMessage]:
            with self._engine.connect() as connection:
                return [KeptMessage(*row) for row in connection.execute(query)]

        return retried(self._engine, ask)


def _storable(body: bytes) -> str:
    """The first 64 KiB of a message as text that PostgreSQL can store."""
    text = body[:BODY_BYTES].decode("utf-8", "replace").replace("\0", "\ufffd")
    # Each byte that is not UTF-8 has become three.
    return text.encode()[:BODY_BYTES].decode("utf-8", "ignore")
