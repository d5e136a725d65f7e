"""Queries of Dagster's event log, and changes of partitions, that the public interface lacks.

They work in bulk where the storage is imgflow's `event_log`. The retention's queries are in
`stale_events`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import dagster as dg
import sqlalchemy as sa
from dagster_postgres import PostgresEventLogStorage

from imgflow.errors import SettingsError
from imgflow.orchestration.dagster_storage.event_log import (
    INPUT_EVENT_POINTER_TAG_PREFIX,
    AssetCheckExecutionsTable,
    BulkPostgresEventLogStorage,
    SqlEventLogStorageTable,
)


def count_partitions(instance: dg.DagsterInstance, name: str) -> int:
    """The number of partitions in a dynamic set."""
    storage = instance.event_log_storage
    if isinstance(storage, BulkPostgresEventLogStorage):
        return storage.count_dynamic_partitions(name)
    return len(instance.get_dynamic_partitions(name))


def delete_partitions(instance: dg.DagsterInstance, name: str, keys: Sequence[str]) -> None:
    """Delete partitions from a dynamic set, all at once if the storage can."""
    storage = instance.event_log_storage
    if isinstance(storage, BulkPostgresEventLogStorage):
        storage.delete_dynamic_partitions(name, keys)
        return
    for key in keys:
        instance.delete_dynamic_partition(name, key)


def event_log_transaction(
    instance: dg.DagsterInstance,
) -> AbstractContextManager[sa.engine.Connection]:
    """Open a transaction in the database of Dagster's event log.

    Raises:
        SettingsError: The instance does not keep its events in PostgreSQL.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, PostgresEventLogStorage):
        raise SettingsError(
            f"The event log is kept by {type(storage).__name__}, and imgflow knows PostgreSQL "
            "only; name BulkPostgresEventLogStorage in dagster.yaml, or set "
            "IMGFLOW_KEEP_EVENTS_DAYS=0."
        )
    return storage.index_transaction()


def input_pointer_pattern(asset_key: dg.AssetKey) -> str:
    """A PostgreSQL pattern that captures a stored materialisation's pointer to one input."""
    tag = json.dumps(f"{INPUT_EVENT_POINTER_TAG_PREFIX}/{asset_key.to_user_string()}")
    return re.escape(f'{tag}: "') + r"(\d+)"


def failing_partitions(
    instance: dg.DagsterInstance,
    checks: Sequence[tuple[dg.AssetKey, str]],
    partitions: Sequence[str] | None = None,
    *,
    most: int = 1_000,
) -> dict[tuple[dg.AssetKey, str], list[str]]:
    """Partitions whose newest evaluation of a check failed, by check; one statement for all.

    Args:
        instance: If it keeps its events outside PostgreSQL, the result is empty.
        checks: Asset keys with names of their checks.
        partitions: Only these partition keys; None for all.
        most: Maximum number of partitions, for all checks together.
    """
    storage = instance.event_log_storage
    if not checks or not isinstance(storage, PostgresEventLogStorage):
        return {}
    columns = (sa.column("position", sa.Integer), sa.column("asset_key", sa.Text))
    wanted = sa.values(*columns, sa.column("check_name", sa.Text), name="wanted").data(
        [(place, key.to_string(), name) for place, (key, name) in enumerate(checks)]
    )
    table = AssetCheckExecutionsTable.c
    evaluated = (
        sa.select(table.partition, table.execution_status)
        .distinct(table.partition)
        .where(table.asset_key == wanted.c.asset_key, table.check_name == wanted.c.check_name)
        # True of ours, and needed: in the table's index this column precedes the partition.
        .where(table.materialization_event_storage_id.is_(None), table.partition.is_not(None))
        .order_by(table.partition, table.id.desc())
    )
    if partitions is not None:
        evaluated = evaluated.where(table.partition.in_(partitions))
    newest = evaluated.lateral("newest")
    query = (
        sa.select(wanted.c.position, newest.c.partition)
        .join_from(wanted, newest, sa.true())
        .where(newest.c.execution_status == "FAILED")
        .limit(most)
    )
    found: dict[tuple[dg.AssetKey, str], list[str]] = {}
    with event_log_transaction(instance) as connection:
        for row in connection.execute(query):
            found.setdefault(checks[row.position], []).append(row.partition)
    return found


def planned_runs(
    instance: dg.DagsterInstance, asset_key: dg.AssetKey, partition: str, *, most: int
) -> dict[str, datetime]:
    """Ids of the newest runs planned to make an asset of a partition, with the time of the plan.

    Raises:
        SettingsError: The instance does not keep its events in PostgreSQL.
    """
    events = SqlEventLogStorageTable.c
    query = (
        sa.select(events.run_id, events.timestamp)
        .where(events.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value)
        .where(events.asset_key == asset_key.to_string(), events.partition == partition)
        .order_by(events.id.desc())
        .limit(most)
    )
    with event_log_transaction(instance) as connection:
        rows = connection.execute(query).all()
    # Dagster stores times in UTC, without a zone.
    return {row.run_id: row.timestamp.replace(tzinfo=UTC) for row in rows}
