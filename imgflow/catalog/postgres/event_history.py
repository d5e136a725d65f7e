"""The history of an image from Dagster's event log, without importing Dagster.

The event log is in the catalogue's database. Importing Dagster would cost the gallery's process a
second and 60 MB. `imgflow.orchestration.dagster_storage.history` asks Dagster itself, and a test
compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from imgflow.catalog.database.engine import TEXT, Connected
from imgflow.catalog.partition_keys import partition_key
from imgflow.catalog.records import Image

MADE, PLANNED = "ASSET_MATERIALIZATION", "ASSET_MATERIALIZATION_PLANNED"

# What became of an image in a run that made nothing of it; any other run waits or is in progress.
ENDS = {"FAILURE": "failed", "CANCELED": "canceled", "SUCCESS": "left out"}

TABLE_EXISTS = sa.text("SELECT to_regclass('event_logs') IS NOT NULL")

# One lookup in the index of asset, type and partition for each asset and type.
EVENTS = sa.text(
    """
    SELECT found.*, runs.status, runs.end_time
    FROM unnest(:assets) AS asset(name)
    CROSS JOIN unnest(:types) AS type(name)
    CROSS JOIN LATERAL (
        SELECT id, run_id, timestamp, dagster_event_type AS type, asset_key AS asset,
            CASE WHEN dagster_event_type = 'ASSET_MATERIALIZATION' THEN event END AS event
        FROM event_logs
        WHERE asset_key = asset.name AND dagster_event_type = type.name AND partition = :partition
        ORDER BY id DESC LIMIT :most
    ) AS found
    LEFT JOIN runs ON runs.run_id = found.run_id
    ORDER BY found.id DESC
    """
).bindparams(sa.bindparam("assets", type_=TEXT), sa.bindparam("types", type_=TEXT))


@dataclass(frozen=True)
class Past:
    """What one run, or one listing, did to an image.

    Attributes:
        time: Time of its last event about the image.
        outcome: `made`, `noop`, `seen` (an upload), `failed`, `canceled`, `left out` or `in
            progress`.
        assets: Names of the assets with this outcome, such as `thumbnail`.
    """

    time: datetime
    outcome: str
    assets: tuple[str, ...]
    run_id: str


class Remembering(Connected):
    """Dagster's events about one image."""

    def past(self, image: Image, assets: Iterable[str], *, most: int = 20) -> list[Past]:
        """The history of an image, newest first; empty if Dagster has no tables here yet.

        `assets` are the names of its assets except `source`.
        """
        values = {
            "assets": [json.dumps([image.kind, name]) for name in ("source", *assets)],
            "types": [MADE, PLANNED],
            "partition": partition_key(image.key),
            "most": most,
        }

        def ask(connection: sa.Connection) -> list[Any]:
            if not connection.execute(TABLE_EXISTS).scalar_one():
                return []
            return list(connection.execute(EVENTS, values))

        return _in_words(self.transaction(ask))[:most]


def _in_words(events: list[Any]) -> list[Past]:
    """Group events by run and outcome, newest first."""
    made = {(event.run_id, event.asset) for event in events if event.type == MADE}
    found: dict[tuple[str, str], tuple[datetime, list[str]]] = {}
    for event in events:
        _, asset = json.loads(event.asset)
        time = event.timestamp.replace(tzinfo=UTC)  # Dagster stores UTC without a time zone
        if event.type == MADE:
            outcome = "seen" if asset == "source" else "noop" if _is_noop(event.event) else "made"
        elif asset == "source" or (event.run_id, event.asset) in made:
            continue
        else:
            outcome = ENDS.get(event.status, "in progress")
            if event.end_time:  # a failure is known only when the run ends
                time = datetime.fromtimestamp(event.end_time, UTC)
        newest, assets = found.setdefault((event.run_id, outcome), (time, []))
        found[event.run_id, outcome] = max(newest, time), assets
        if asset not in assets:
            assets.append(asset)
    past = [
        Past(time, outcome, tuple(sorted(assets)), run_id)
        for (run_id, outcome), (time, assets) in found.items()
    ]
    return sorted(past, key=lambda one: one.time, reverse=True)


def _is_noop(event: str) -> bool:
    """Whether a stored materialization says that nothing had to be made."""
    data = json.loads(event)["dagster_event"]["event_specific_data"]["materialization"]
    entries = data.get("metadata_entries") or []
    return any(e.get("label") == "noop" and e["entry_data"].get("value") for e in entries)
