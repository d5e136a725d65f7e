"""What a monitoring system is told of one source, read at once and within a bounded time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from imgflow.catalog.database.engine import outages_in_words
from imgflow.catalog.postgres.counters import Series, read_counters
from imgflow.catalog.postgres.sensing import Pulse, read_pulse
from imgflow.catalog.records import Kind, State
from imgflow.errors import TROUBLE_CODES

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
