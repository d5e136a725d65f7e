"""The catalogue's tables for SQLAlchemy Core, and what text and JSON PostgreSQL can store.

Migrations create the tables; see `schema`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA, JSONB

from imgflow.store.objects import is_text

metadata = sa.MetaData()

# Byte order, the order in which S3 lists, so that pages of a listing and of the table match.
KEY = sa.Text(collation="C")

images = sa.Table(
    "images",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("source", sa.Text, nullable=False, comment="URL of the source, part of the identity"),
    sa.Column("key", KEY, nullable=False, comment="object key below the source's prefix"),
    sa.Column("kind", sa.Text, nullable=False, comment="photo or depth"),
    sa.Column("state", sa.Text, nullable=False, comment="pending, ready, rejected or deleted"),
    sa.Column("reason", sa.Text, comment="why it is rejected, or what the last trouble was"),
    sa.Column("reason_code", sa.Text, comment="the reason for programs"),
    # The upload that was processed last ...
    sa.Column("etag", sa.Text),
    sa.Column("version_id", sa.Text),
    sa.Column("size", sa.BigInteger),
    sa.Column("last_modified", sa.DateTime(timezone=True)),
    sa.Column("sha256", sa.Text),
    sa.Column("media_type", sa.Text),
    sa.Column("width", sa.Integer, comment="pixels, upright"),
    sa.Column("height", sa.Integer, comment="pixels, upright; rows of a depth image"),
    sa.Column("mode", sa.Text, comment="pixel mode as uploaded"),
    sa.Column("recipe", sa.Text, comment="fingerprint of all that decided the outputs"),
    sa.Column("outputs", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    sa.Column("facts", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    sa.Column("processed", sa.Text, comment="identity of the upload that was last processed"),
    sa.Column("run_id", sa.Text),
    # ... and the one that a listing announced last.
    sa.Column("announced", sa.Text, nullable=False, comment="identity of the newest upload"),
    sa.Column("announced_etag", sa.Text, nullable=False),
    sa.Column("announced_version_id", sa.Text),
    sa.Column("announced_size", sa.BigInteger, nullable=False),
    sa.Column("announced_last_modified", sa.DateTime(timezone=True), nullable=False),
    # Run requests of the sensor.
    sa.Column("batch", sa.Text, comment="tag of the run that was asked to process it"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("not_before", sa.DateTime(timezone=True), comment="no request earlier than this"),
    sa.Column(
        "unreported",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        comment="a run died that may not have told Dagster of it",
    ),
    # Life cycle.
    sa.Column("gone_at", sa.DateTime(timezone=True), comment="when its object was first missing"),
    sa.Column("in_partitions", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column(
        "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
    ),
    sa.Column(
        "updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
    ),
    sa.UniqueConstraint("source", "key", name="images_source_key"),
    sa.CheckConstraint("kind IN ('photo', 'depth')", name="images_kind"),
    sa.CheckConstraint("state IN ('pending', 'ready', 'rejected', 'deleted')", name="images_state"),
)

sa.Index(
    "images_pending",
    images.c.source,
    images.c.id,
    postgresql_where=sa.or_(images.c.state == "pending", images.c.unreported),
)
sa.Index(
    "images_hot",
    images.c.source,
    images.c.kind,
    images.c.id,
    postgresql_where=images.c.in_partitions,
)
sa.Index(
    "images_hot_since",
    images.c.source,
    images.c.kind,
    images.c.updated_at,
    images.c.id,
    postgresql_where=images.c.in_partitions,
)
sa.Index(
    "images_hot_rejected",
    images.c.source,
    images.c.kind,
    images.c.key,
    postgresql_where=sa.and_(images.c.state == "rejected", images.c.in_partitions),
)
sa.Index(
    "images_leaving",
    images.c.source,
    images.c.kind,
    postgresql_where=sa.and_(images.c.state == "deleted", images.c.in_partitions),
)
sa.Index("images_state_id", images.c.source, images.c.state, images.c.id)
sa.Index("images_counts", images.c.source, images.c.kind, images.c.state, images.c.reason_code)
sa.Index(
    "images_pending_since",
    images.c.source,
    images.c.updated_at,
    postgresql_where=images.c.state == "pending",
)
sa.Index("images_sha256", images.c.sha256, postgresql_where=images.c.sha256.is_not(None))

# For statements that are written as text and call the table `i`.
COLUMNS = ", ".join(f"i.{column.name}" for column in images.columns)

run_holds = sa.Table(
    "run_holds",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True, comment="of Dagster"),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("batch", sa.Text, nullable=False, comment="name of the lock that its process holds"),
    sa.Column("image_ids", sa.ARRAY(sa.BigInteger), nullable=False, comment="empty once it ended"),
    sa.Column("began_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("ended_at", sa.DateTime(timezone=True), comment="when its last event was stored"),
    sa.Column("images", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("bytes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
)

sa.Index("run_holds_open", run_holds.c.source, postgresql_where=run_holds.c.ended_at.is_(None))
sa.Index("run_holds_ended", run_holds.c.source, run_holds.c.kind, run_holds.c.ended_at)

depth_chunks = sa.Table(
    "depth_chunks",
    metadata,
    sa.Column(
        "image_id",
        sa.BigInteger,
        sa.ForeignKey("images.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column(
        "array", sa.Text, primary_key=True, comment="fingerprint; the row names the current one"
    ),
    sa.Column("chunk", sa.Integer, primary_key=True),
    sa.Column("first_row", sa.BigInteger, nullable=False),
    sa.Column("row_count", sa.Integer, nullable=False),
    sa.Column("depth_min", sa.Double, nullable=False),
    sa.Column("depth_max", sa.Double, nullable=False),
    sa.Column("depths", BYTEA, nullable=False, comment="float64, little endian"),
    sa.Column("pixels", BYTEA, comment="float32, little endian, row by row"),
    sa.Column("repeating", BYTEA, comment="the same, where compression pays; one of the two"),
)

sa.Index(
    "depth_chunks_interval",
    depth_chunks.c.image_id,
    depth_chunks.c.array,
    depth_chunks.c.depth_max,
    depth_chunks.c.depth_min,
)

counters = sa.Table(
    "counters",
    metadata,
    sa.Column("source", sa.Text, primary_key=True, comment="URL of the source"),
    sa.Column("name", sa.Text, primary_key=True, comment="of the metric"),
    sa.Column("labels", JSONB, primary_key=True),
    # Exact for integers up to 2^53: nine petabytes.
    sa.Column("value", sa.Double, nullable=False),
)

revoked = sa.Table(
    "revoked",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="of a session or a sign-in key"),
    sa.Column("until", sa.DateTime(timezone=True), nullable=False, comment="kept as long"),
)

sensor_ticks = sa.Table(
    "sensor_ticks",
    metadata,
    sa.Column("source", sa.Text, primary_key=True, comment="URL of the source"),
    sa.Column("sensor", sa.Text, primary_key=True),
    sa.Column("good_at", sa.DateTime(timezone=True), comment="end of its last good tick"),
    sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False, comment="of its last tick"),
    sa.Column("due_at", sa.DateTime(timezone=True), nullable=False, comment="of the next good one"),
    sa.Column("trouble", sa.Text, comment="of its last tick, if that was not good"),
)


# What PostgreSQL can store: names and tags inside an image may be anything.


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can store a text; it refuses even to compare with any other."""
    return "\0" not in text and is_text(text)


def storable_text(text: str | None) -> str | None:
    """The text with what PostgreSQL refuses replaced; names and tags in images may be anything."""
    if text is None or is_storable(text):
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def storable_json(value: Any) -> str:
    """Encode a value as JSON that PostgreSQL accepts."""
    return json.dumps(_storable(value), allow_nan=False)


def _storable(value: Any) -> Any:
    """Replace NUL, lone surrogates, NaN and infinity, any of which fails the complete batch."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {storable_text(name): _storable(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(part) for part in value]
    return value
