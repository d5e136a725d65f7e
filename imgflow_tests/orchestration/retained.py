"""A retention within a test, and what it leaves in the event log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import sqlalchemy as sa

from imgflow.orchestration.upkeep.retention import Freed, clean_event_log
from imgflow_tests.orchestration.project import Project

JOBS = (
    *("process_photos", "process_depth_images"),
    *("backfill_stale", "reconcile", "retention", "audit"),
)
NOTHING = Freed()


def clean(project: Project, *, age: timedelta = timedelta(0), page_events: int = 2_000) -> Freed:
    """One retention of everything that is older."""
    return clean_event_log(
        project.instance,
        project.families,
        jobs=JOBS,
        older_than=datetime.now(UTC) - age,
        page_events=page_events,
    )


def events(project: Project, *types: str) -> list[tuple[Any, ...]]:
    """Rows of the event log, in the order of their ids."""
    with project.catalog.engine.connect() as connection:
        rows = connection.execute(
            sa.text(
                "SELECT id, run_id, dagster_event_type, asset_key, partition FROM event_logs"
                " WHERE dagster_event_type = ANY(CAST(:types AS text[]))"
                " OR cardinality(CAST(:types AS text[])) = 0 ORDER BY id"
            ),
            {"types": list(types)},
        )
        return [tuple(row) for row in rows]


def partitions_of(rows: Sequence[tuple[Any, ...]], asset: str) -> list[str]:
    """In order of their keys: workers finish images in any."""
    key = dg.AssetKey(asset.split("/")).to_string()
    return sorted(row[4] for row in rows if row[3] == key)


def age(project: Project, *, days: int) -> None:
    """Make everything older than it is."""
    with project.catalog.engine.begin() as connection:
        for statement in (
            "UPDATE event_logs SET timestamp = timestamp - :days * interval '1 day'",
            "UPDATE runs SET update_timestamp = update_timestamp - :days * interval '1 day'",
        ):
            connection.execute(sa.text(statement), {"days": days})
