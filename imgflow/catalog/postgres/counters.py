"""Counters that outlive the processes that count: runs add to them, the API shows them.

Each is a row of a source, a name and labels, as Prometheus has them. Rows are added to in place, in
sorted order so that two runs wait but never deadlock. A row is locked until its transaction has
ended, and no longer: the transaction does not wait for the disk. Rows that are only inserted, and
summed later, would need somebody who compacts them, and save a wait of a fraction of a millisecond.

What is counted may be lost, and is never counted twice: a process that is killed between writing
rows of `images` and counting them, a database that goes away in between, or one that crashes within
its `wal_writer_delay` after it, loses the counts of one flush.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from imgflow.catalog.database.engine import is_outage, outages_in_words
from imgflow.catalog.database.tables import counters
from imgflow.catalog.postgres.sensing import Pulse, read_pulse
from imgflow.catalog.records import Kind, State
from imgflow.errors import TROUBLE_CODES

logger = logging.getLogger(__name__)

OUTCOMES = "imgflow_image_outcomes_total"
COPIED = "imgflow_copied_total"
SOURCE_BYTES = "imgflow_source_bytes_total"
OUTPUT_BYTES = "imgflow_output_bytes_total"
ARRIVAL_TO_READY = "imgflow_arrival_to_ready_seconds"

# From a small image that a notification announced to a backlog of days.
ARRIVAL_BOUNDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 21600, 86400)

ADD = sa.text(
    """
    INSERT INTO counters (source, name, labels, value)
    SELECT :source, name, labels::jsonb, value
    FROM unnest(:names, :labels, :values) AS c(name, labels, value)
    ORDER BY name, labels::jsonb
    ON CONFLICT (source, name, labels) DO UPDATE SET value = counters.value + excluded.value
    """
)
TEXTS, DOUBLES = sa.ARRAY(sa.Text), sa.ARRAY(sa.Double)


@dataclass(frozen=True)
class Series:
    """A name with labels; the labels are in the order of their names."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()


def series(name: str, **labels: str) -> Series:
    """Name a series."""
    return Series(name, tuple(sorted(labels.items())))


def bucket_of(name: str, value: float, bounds: tuple[float, ...], **labels: str) -> Series:
    """The bucket that a value falls in, named by its upper bound.

    A value is in one stored bucket only, unlike in what Prometheus reads: bounds may then differ
    between versions, and what `cumulated` makes of them still never falls.
    """
    place = bisect_left(bounds, value)
    bound = bounds[place] if place < len(bounds) else inf
    return series(f"{name}_bucket", le=_le(bound), **labels)


def cumulated(
    counts: Mapping[Series, float], name: str, bounds: Iterable[float], **labels: str
) -> tuple[list[tuple[str, float]], float]:
    """A histogram as Prometheus reads it.

    Returns:
        The upper bounds, ending with `+Inf`, each with how many values are not above it; and the
        sum of all values.
    """
    found = {_le(bound): 0.0 for bound in (*bounds, inf)}
    for one, value in counts.items():
        others = dict(one.labels)
        bound = others.pop("le", None)
        if one.name == f"{name}_bucket" and bound is not None and others == labels:
            found[bound] = value
    ordered = sorted(found, key=float)
    totals = accumulate(found[bound] for bound in ordered)
    return list(zip(ordered, totals, strict=True)), counts.get(series(f"{name}_sum", **labels), 0.0)


class Counters:
    """The counters of one source."""

    def __init__(self, engine: sa.Engine, source: str) -> None:
        self._engine = engine
        self._source = source

    def add(self, counts: Mapping[Series, float]) -> None:
        """Add to counters, in one statement; a database that is away loses the counts.

        It is not tried again, since one that went away while it committed may have counted.
        """
        counts = {one: value for one, value in counts.items() if value}
        if not counts:
            return
        statement = ADD.bindparams(
            sa.bindparam("names", [one.name for one in counts], TEXTS),
            sa.bindparam("labels", [json.dumps(dict(one.labels)) for one in counts], TEXTS),
            sa.bindparam("values", list(counts.values()), DOUBLES),
            source=self._source,
        )
        try:
            with self._engine.begin() as connection:
                # Else every run would wait for the disk with the rows of all others locked.
                connection.execute(sa.text("SET LOCAL synchronous_commit = off"))
                connection.execute(statement)
        except SQLAlchemyError as error:
            if not is_outage(error):
                raise
            logger.warning("The database was away: counts of one flush are not in the metrics.")

    def read(self) -> dict[Series, float]:
        """All counters that were ever added to."""
        with self._engine.connect() as connection:
            return read_counters(connection, self._source)


def read_counters(connection: sa.Connection, source: str) -> dict[Series, float]:
    """The counters of a source, within the caller's transaction."""
    c = counters.c
    query = sa.select(c.name, c.labels, c.value).where(c.source == source)
    return {
        series(name, **labels): value for name, labels, value in connection.execute(query).all()
    }


def _le(bound: float) -> str:
    return "+Inf" if bound == inf else str(float(bound))


# What a monitoring system is told of one source, read at once and within a bounded time.


# Prometheus waits for a scrape for ten by default.
STATEMENT_SECONDS = 7

# Both are answered from an index alone, with a million images in 50 ms and in less than one. Where
# rows changed since the last vacuum their pages are read too: 1.4 s after a third of them changed.
COUNTS = sa.text(
    "SELECT kind, state, reason_code, count(*) FROM images WHERE source = :source "
    "GROUP BY kind, state, reason_code"
)
BACKLOG = sa.text(
    "SELECT extract(epoch FROM now() - min(updated_at)) FROM images "
    "WHERE source = :source AND state = 'pending'"
)
UNREADABLE = sa.text("SELECT count(*) FROM unreadable_messages WHERE source = :source")


@dataclass(frozen=True)
class Reading:
    """The state of a source at one moment.

    Attributes:
        images: how many by kind and state.
        rejected: how many are rejected, by kind and code of the reason.
        waiting: how many are kept waiting by trouble, by kind and code of the reason.
        backlog_seconds: for how long the oldest pending image has been pending; 0 without one.
        unreadable_messages: of the queue that are kept.
        counters: of runs, see `counters`.
        pulse: whether uploads are seen and processed.
    """

    images: Mapping[tuple[Kind, State], int]
    rejected: Mapping[tuple[Kind, str], int]
    waiting: Mapping[tuple[Kind, str], int]
    backlog_seconds: float
    unreadable_messages: int
    counters: Mapping[Series, float]
    pulse: Pulse = field(default_factory=Pulse)


def read_state(engine: sa.Engine, source: str, sensors: tuple[str, ...] = ()) -> Reading:
    """Ask once, without patience: the next scrape asks again.

    Args:
        engine: of the database.
        source: whose state is read.
        sensors: names of those that look for its uploads.

    Raises:
        Trouble: the database does not answer in time.
    """
    images: Counter[tuple[Kind, State]] = Counter()
    rejected: Counter[tuple[Kind, str]] = Counter()
    waiting: Counter[tuple[Kind, str]] = Counter()
    values = {"source": source}
    pulse = read_pulse(engine, source, sensors)
    with outages_in_words(engine), engine.connect() as connection:
        connection.execute(sa.text(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'"))
        for kind, state, code, count in connection.execute(COUNTS, values):
            images[kind, state] += count
            if state == "rejected":
                rejected[kind, code or "unknown"] += count
            elif state == "pending" and code in TROUBLE_CODES:
                waiting[kind, code] += count
        return Reading(
            images=images,
            rejected=rejected,
            waiting=waiting,
            backlog_seconds=max(0.0, float(connection.execute(BACKLOG, values).scalar() or 0)),
            unreadable_messages=connection.execute(UNREADABLE, values).scalar_one(),
            counters=read_counters(connection, source),
            pulse=pulse,
        )
