"""The one module that uses private names of Dagster: events of single images, in bulk.

Why it exists, with dagster 1.13.27: in a run over a range of partitions the public interface gives
all of them the same metadata and data version, or costs 26 to 123 ms an event. This module sends
each image its own event through Dagster's own batching, and stores a batch with `COPY` in one
transaction: below 1 ms an image.

`imgflow_tests/orchestration/test_event_log.py` fails by name when Dagster changes what is used
here.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from graphlib import TopologicalSorter
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    INPUT_DATA_VERSION_TAG_PREFIX,
    INPUT_EVENT_POINTER_TAG_PREFIX,
)
from dagster._core.events import (
    DagsterEvent,
    DagsterEventBatchMetadata,
    EngineEventData,
    StepMaterializationData,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.execution.context.system import StepExecutionContext
from dagster._core.storage.event_log.schema import (
    AssetEventTagsTable,
    AssetKeyTable,
    DynamicPartitionsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from dagster._serdes import ConfigurableClassData
from dagster_postgres import PostgresEventLogStorage
from dagster_postgres.utils import create_pg_engine, pg_url_from_config
from sqlalchemy.dialects.postgresql import aggregate_order_by

from imgflow.errors import SettingsError
from imgflow.orchestration.event_rows import RowWriter

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "PARTITION_NAME_TAG",
    "AssetEventTagsTable",
    "AssetKeyTable",
    "BulkPostgresEventLogStorage",
    "ImageEvent",
    "SqlEventLogStorageTable",
    "count_partitions",
    "delete_partitions",
    "event_log_transaction",
    "has_open_backfill",
    "input_pointer_pattern",
    "planned_runs",
    "report_counts",
    "report_images",
]

# Dagster sends events in batches only where this variable is set, in every process that creates or
# executes runs. All of them load the storage class below, so it sets the variable rather than each
# deployment.
BATCH_VARIABLE = "DAGSTER_EVENT_BATCH_SIZE"
BATCH_EVENTS = 5_000

TEXTS = sa.ARRAY(sa.Text)

BULK_TYPES = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
}


class BulkPostgresEventLogStorage(PostgresEventLogStorage):
    """Dagster's PostgreSQL event log, with batches of materialisations copied in bulk.

    Named in `dagster.yaml` under `event_log_storage`. Everything else is Dagster's own.
    """

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        os.environ.setdefault(BATCH_VARIABLE, str(BATCH_EVENTS))
        super().__init__(postgres_url, should_autocreate_tables, inst_data)
        # The parent connects anew for each statement, about forty times in a run: 2 ms each.
        self._engine = create_pg_engine(
            postgres_url,
            isolation_level="AUTOCOMMIT",
            pool_size=1,
            max_overflow=20,
            pool_pre_ping=True,
            pool_recycle=600,
        )

    def dispose(self) -> None:
        """Close the connection that is kept."""
        super().dispose()
        self._engine.dispose()

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> BulkPostgresEventLogStorage:
        """Make the storage of a `dagster.yaml`; the parent's method names its own class."""
        return cls(
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
        )

    def get_dynamic_partitions(self, partitions_def_name: str) -> Sequence[str]:
        """Read all keys as one array: as 100,000 rows they take ten times as long.

        Dagster reads them four times for each run over a range.
        """
        table = DynamicPartitionsTable.c
        in_order = sa.func.array_agg(aggregate_order_by(table.partition, table.id))
        query = sa.select(in_order).where(table.partitions_def_name == partitions_def_name)
        with self.index_connection() as connection:
            return connection.execute(query).scalar() or []

    def count_dynamic_partitions(self, partitions_def_name: str) -> int:
        """Count partitions without reading their keys."""
        table = DynamicPartitionsTable.c
        query = sa.select(sa.func.count()).where(table.partitions_def_name == partitions_def_name)
        with self.index_connection() as connection:
            return int(connection.execute(query).scalar_one())

    def delete_dynamic_partitions(self, partitions_def_name: str, keys: Sequence[str]) -> None:
        """Delete many partitions with one statement; Dagster's own way takes two for each."""
        with self.index_transaction() as connection:
            connection.execute(
                DynamicPartitionsTable.delete().where(
                    DynamicPartitionsTable.c.partitions_def_name == partitions_def_name,
                    DynamicPartitionsTable.c.partition == sa.any_(sa.literal(list(keys), TEXTS)),
                )
            )

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store a batch: all of it or, when the database refuses, nothing.

        Dagster stores the events of a failed batch again one by one, so a batch that was stored in
        part would be stored twice.
        """
        if not {event.dagster_event_type for event in events} <= BULK_TYPES:
            super().store_event_batch(events)
            return
        with self.index_transaction() as connection:
            event_ids = [
                row[0]
                for row in connection.exec_driver_sql(
                    "SELECT nextval(pg_get_serial_sequence('event_logs', 'id'))"
                    " FROM generate_series(1, %s)",
                    (len(events),),
                )
            ]
            writer = RowWriter(self._event_to_row, self._event_insert_timestamp)
            rows = [writer.row(event) for event in events]
            _copy(
                connection,
                SqlEventLogStorageTable.name,
                ("id", *rows[0]),
                ((event_id, *row.values()) for event_id, row in zip(event_ids, rows, strict=True)),
            )
            _copy(
                connection,
                AssetEventTagsTable.name,
                ("event_id", "asset_key", "key", "value", "event_timestamp"),
                (
                    (event_id, row["asset_key"], key, value, row["timestamp"])
                    for event_id, row, event in zip(event_ids, rows, events, strict=True)
                    for key, value in self._tags_for_asset_event(event).items()
                ),
            )
            # The asset table holds the newest event of each asset and kind; in the order of its
            # keys, so that two runs never wait for each other.
            newest = {
                (row["asset_key"], row["dagster_event_type"]): (event, event_id)
                for event, event_id, row in zip(events, event_ids, rows, strict=True)
            }
            for _, (event, event_id) in sorted(newest.items(), key=lambda item: item[0]):
                self._store_asset_event(connection, event, event_id)


def has_open_backfill(instance: dg.DagsterInstance) -> bool:
    """Whether somebody's backfill has not been turned into runs completely."""
    return bool(instance.get_backfills(status=BulkActionStatus.REQUESTED, limit=1))


def count_partitions(instance: dg.DagsterInstance, name: str) -> int:
    """How many partitions a dynamic set has."""
    storage = instance.event_log_storage
    if isinstance(storage, BulkPostgresEventLogStorage):
        return storage.count_dynamic_partitions(name)
    return len(instance.get_dynamic_partitions(name))


def delete_partitions(instance: dg.DagsterInstance, name: str, keys: Sequence[str]) -> None:
    """Delete partitions from a dynamic set, all at once where the storage can."""
    storage = instance.event_log_storage
    if isinstance(storage, BulkPostgresEventLogStorage):
        storage.delete_dynamic_partitions(name, keys)
        return
    for key in keys:
        instance.delete_dynamic_partition(name, key)


def _copy(
    connection: Any, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Copy rows into a table with PostgreSQL's text format."""
    lines = io.StringIO()
    for row in rows:
        lines.write("\t".join(map(_escape, row)))
        lines.write("\n")
    if not lines.tell():
        return
    lines.seek(0)
    names = ", ".join(f'"{column}"' for column in columns)
    with connection.connection.cursor() as cursor:
        cursor.copy_expert(f"COPY {table} ({names}) FROM STDIN", lines)


def _escape(value: Any) -> str:
    r"""Write one value; `\N` is NULL."""
    if value is None:
        return r"\N"
    return (
        str(value)
        .replace("\\", "\\\\")
        .replace("\t", "\\t")
        .replace("\n", "\\n")
        .replace("\r", "\\r")
    )


@dataclass(frozen=True)
class ImageEvent:
    """A materialisation of one asset of one image.

    Attributes:
        asset_key: the asset.
        partition: the image's partition key.
        data_version: changes exactly when the output does.
        code_version: fingerprint of the recipe it was made with; None for external assets.
        inputs: data versions of the assets it was made from, for Dagster's staleness.
        metadata: what the UI shows.
    """

    asset_key: dg.AssetKey
    partition: str
    data_version: str
    code_version: str | None = None
    inputs: Mapping[dg.AssetKey, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def materialization(self, pointer: int) -> dg.AssetMaterialization:
        """The public event.

        Args:
            pointer: id of the newest event that its inputs may have had when it was made.
        """
        tags = {DATA_VERSION_TAG: self.data_version}
        if self.code_version is not None:
            tags[CODE_VERSION_TAG] = self.code_version
            tags[DATA_VERSION_IS_USER_PROVIDED_TAG] = "true"
        for asset_key, version in self.inputs.items():
            name = asset_key.to_user_string()
            tags[f"{INPUT_DATA_VERSION_TAG_PREFIX}/{name}"] = version
            tags[f"{INPUT_EVENT_POINTER_TAG_PREFIX}/{name}"] = str(pointer)
        return dg.AssetMaterialization(
            self.asset_key, partition=self.partition, metadata=self.metadata, tags=tags
        )


def report_images(context: dg.AssetExecutionContext, events: Sequence[ImageEvent]) -> None:
    """Store events as those of the running step, one batch for each level of the asset graph.

    They go past the console's log handlers, whose formatting costs a third of the bookkeeping.
    """
    step = context.get_step_execution_context()
    levels = TopologicalSorter({event.asset_key: set(event.inputs) for event in events})
    levels.prepare()
    while levels.is_active():
        keys = levels.get_ready()
        level = [event for event in events if event.asset_key in keys]
        if level:
            _report_level(context.instance, context.run.run_id, step, level)
        levels.done(*keys)


def report_counts(
    context: dg.AssetExecutionContext, message: str, counts: Mapping[str, int]
) -> None:
    """Log a message of the running step with counts as its metadata.

    The public way, metadata of an output, needs an output, and one would stand for all partitions.
    """
    metadata = {name: dg.MetadataValue.int(count) for name, count in counts.items()}
    DagsterEvent.engine_event(
        context.get_step_execution_context(), message, EngineEventData(metadata)
    )


def _report_level(
    instance: dg.DagsterInstance, run_id: str, step: StepExecutionContext, events: list[ImageEvent]
) -> None:
    # Dagster takes an image for stale when one of its inputs has an event after this one.
    pointer = instance.event_log_storage.get_maximum_record_id() or 0
    batch_id = str(uuid.uuid4())
    last = len(events) - 1
    for position, event in enumerate(sorted(events, key=lambda e: e.asset_key.to_user_string())):
        instance.report_dagster_event(
            _step_event(step, event.materialization(pointer)),
            run_id=run_id,
            log_level=logging.DEBUG,
            batch_metadata=DagsterEventBatchMetadata(batch_id, position == last),
        )


def _step_event(
    step: StepExecutionContext, materialization: dg.AssetMaterialization
) -> DagsterEvent:
    return DagsterEvent(
        event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name=step.job_name,
        step_handle=step.step.handle,
        node_handle=step.step.node_handle,
        step_kind_value=step.step.kind.value,
        logging_tags=step.event_tags,
        event_specific_data=StepMaterializationData(materialization),
        message=None,
        pid=os.getpid(),
    )


def event_log_transaction(
    instance: dg.DagsterInstance,
) -> AbstractContextManager[sa.engine.Connection]:
    """Open a transaction in the database of Dagster's event log.

    Raises:
        SettingsError: the instance keeps its events elsewhere than in PostgreSQL.
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
    """A PostgreSQL pattern whose group is a stored materialisation's pointer to one input."""
    tag = json.dumps(f"{INPUT_EVENT_POINTER_TAG_PREFIX}/{asset_key.to_user_string()}")
    return re.escape(f'{tag}: "') + r"(\d+)"


def planned_runs(
    instance: dg.DagsterInstance, asset_key: dg.AssetKey, partition: str, *, most: int
) -> dict[str, datetime]:
    """The newest runs that were to make an asset of a partition, and when they were made.

    Raises:
        SettingsError: the instance keeps its events elsewhere than in PostgreSQL.
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
    # Dagster writes UTC without its name.
    return {row.run_id: row.timestamp.replace(tzinfo=timezone.utc) for row in rows}
