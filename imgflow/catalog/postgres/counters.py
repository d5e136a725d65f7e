"""Metrics of one source: counters that outlive the processes that count, and its current state.

Runs add to counters, and the API shows them. Each is a row of a source, a name and labels, as in
Prometheus. Rows are updated in place, in sorted order so that two runs wait but never deadlock. A
row stays locked only until its transaction ends, which does not wait for the disk. Inserting rows
and summing them later would need a process that compacts them, and save a fraction of a
millisecond of waiting.

Counts may be lost, but nothing is counted twice. The counts of one flush are lost if a process is
killed after it wrote rows of `images` and before it counted them, if the database goes away in
between, or if it crashes within its `wal_writer_delay` afterwards.
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

# From a small image that a notification announced to a backlog of days, in seconds.
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
    """A metric name with labels, sorted by label name."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()


def series(name: str, **labels: str) -> Series:
    """Make a series."""
    return Series(name, tuple(sorted(labels.items())))


def bucket_of(name: str, value: float, bounds: tuple[float, ...], **labels: str) -> Series:
    """The histogram bucket that contains a value, named by its upper bound.

    Unlike in Prometheus's format, a value is stored in one bucket only. So bounds may differ
    between versions, and the totals that `cumulated` computes still never fall.
    """
    place = bisect_left(bounds, value)
    bound = bounds[place] if place < len(bounds) else inf
    return series(f"{name}_bucket", le=_le(bound), **labels)


def cumulated(
    counts: Mapping[Series, float], name: str, bounds: Iterable[float], **labels: str
) -> tuple[list[tuple[str, float]], float]:
    """A histogram in Prometheus's form.

    Returns:
        Upper bounds, ending with `+Inf`, each with the number of values that are not above it; and
        the sum of all values.
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
        """Add to counters in one statement; if the database is unavailable, the counts are lost.

        This is not retried: a database that goes away while it commits may have counted.
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
                # Otherwise every run would wait for the disk with the rows of all others locked.
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
    """The counters of a source, read in the caller's transaction."""
    c = counters.c
    query = sa.select(c.name, c.labels, c.value).where(c.source == source)
    return {
        series(name, **labels): value for name, labels, value in connection.execute(query).all()
    }


def _le(bound: float) -> str:
    return "+Inf" if bound == inf else str(float(bound))


# The state of one source for a monitoring system, read at once and within a bounded time.


# By default, Prometheus waits ten seconds for a scrape.
STATEMENT_SECONDS = 7

# An index alone answers both: for a million images, in 50 ms and in less than one. Pages whose rows
# changed since the last vacuum are read too: 1.4 s after a third of the rows changed.
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
        images: Number of images by kind and state.
        rejected: Number of rejected images by kind and reason code.
        waiting: Number of images delayed by external errors, by kind and reason code.
        backlog_seconds: Age in seconds of the oldest pending state; 0 if no image is pending.
        unreadable_messages: Number of unreadable messages that are kept.
        counters: What runs have counted, by series.
    """

    images: Mapping[tuple[Kind, State], int]
    rejected: Mapping[tuple[Kind, str], int]
    waiting: Mapping[tuple[Kind, str], int]
    backlog_seconds: float
    unreadable_messages: int
    counters: Mapping[Series, float]
    pulse: Pulse = field(default_factory=Pulse)


def read_state(engine: sa.Engine, source: str, sensors: tuple[str, ...] = ()) -> Reading:
    """Read the state without retries: the next scrape asks again.

    Raises:
        Trouble: The database does not answer in time.
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
