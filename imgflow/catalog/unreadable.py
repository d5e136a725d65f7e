"""Messages of the queue that could not be read: kept for operators, in bounded number and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from imgflow.catalog.database.engine import retried
from imgflow.catalog.database.tables import metadata

BODY_BYTES = 64 * 1024

# Somebody's wrong queue must not fill the database.
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
    """A message that nobody could make sense of, and why."""

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
        """Write messages; one that came again stands there already."""
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
        """How many are kept."""
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
        """Those that came last, the last one first."""
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
    """At most 64 KiB of text as PostgreSQL takes it."""
    text = body[:BODY_BYTES].decode("utf-8", "replace").replace("\0", "\ufffd")
    # Each byte that is no UTF-8 has become three.
    return text.encode()[:BODY_BYTES].decode("utf-8", "ignore")
