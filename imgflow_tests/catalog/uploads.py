"""Uploads and verdicts as sources and workers make them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image, Verdict
from imgflow.store.objects import SourceObject

SOURCE = "s3://bucket/in/"
Open = Callable[[str], PostgresCatalog]

WHEN = datetime(2026, 8, 1, 12, 0, 0, tzinfo=UTC)


def upload(key: str, etag: str = "e1", size: int = 10) -> SourceObject:
    return SourceObject(key, etag, None, size, WHEN)


def verdict(image: Image, state: Any = "ready", **values: Any) -> Verdict:
    values = {"run_id": "run", "recipe": "recipe", "upload": image.newest_upload, **values}
    return Verdict(image_id=image.id, state=state, **values)


def announced(catalog: PostgresCatalog, *keys: str) -> list[Image]:
    """Rows of new uploads, in the order of the keys."""
    catalog.announce([upload(key) for key in keys])
    rows = catalog.by_keys(keys)
    return [rows[key] for key in keys]


def row(catalog: PostgresCatalog, key: str) -> Image:
    return catalog.by_keys([key])[key]


def delete(catalog: PostgresCatalog, image_id: int) -> None:
    with catalog.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE images SET state = 'deleted' WHERE id = :id"), {"id": image_id}
        )
