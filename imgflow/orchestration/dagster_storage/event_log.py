"""The one module that uses private names of Dagster: an event log that takes events in bulk.

Why it exists, with dagster 1.13.27: in a run over a range of partitions the public interface gives
all of them the same metadata and data version, or costs 26 to 123 ms an event. Here each image has
events of its own, and those of a few hundred images are stored with `COPY` in one transaction.

`imgflow_tests/orchestration/test_event_log.py` fails by name when Dagster changes what is used
here.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
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
    AssetCheckExecutionsTable,
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
from dagster._serdes import ConfigurableClassData, serialize_value
from dagster_postgres import PostgresEventLogStorage
from dagster_postgres.utils import create_pg_engine, pg_url_from_config
from sqlalchemy.dialects.postgresql import aggregate_order_by

from imgflow.catalog.database.engine import bound_server, retried
from imgflow.orchestration.dagster_storage.event_rows import (
    NewEvaluation,
    NewEvent,
    RowWriter,
    as_dagster,
    copy_evaluations,
    copy_events,
    materialization_outline,
    newest,
    planned_outline,
    reserved_ids,
)
from imgflow.orchestration.dagster_storage.storages import is_present

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "INPUT_EVENT_POINTER_TAG_PREFIX",
    "PARTITION_NAME_TAG",
    "AssetCheckExecutionsTable",
    "AssetEventTagsTable",
    "AssetKeyTable",
    "BulkPostgresEventLogStorage",
    "ImageEvent",
    "SqlEventLogStorageTable",
    "has_open_backfill",
    "report_counts",
    "report_evaluation",
    "report_level",
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


@dataclass(frozen=True)
class ImageEvent:
    """A materialisation of one asset of one image.

    Attributes:
        asset_key: the asset.
        partition: the image's partition key.
        data_version: changes exactly when the output does.
        code_version: fingerprint of the recipe it was made with; None for external assets.
        inputs: data versions of the assets it was made from, for Dagster's staleness.
        metadata: what the UI shows; `event_rows` has types for Markdown and links.
    """

    asset_key: dg.AssetKey
    partition: str
    data_version: str
    code_version: str | None = None
    inputs: Mapping[dg.AssetKey, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def tags(self, pointer: int) -> dict[str, str]:
        """Versions and provenance, as Dagster keeps them.

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
        return tags


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
        self._writer: tuple[str, RowWriter] | None = None
        # The parent connects anew for each statement, about forty times in a run: 2 ms each.
        self._engine = create_pg_engine(
            postgres_url,
            isolation_level="AUTOCOMMIT",
            pool_size=1,
            max_overflow=20,
            pool_pre_ping=True,
            pool_recycle=600,
        )
        bound_server(self._engine)

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

    def has_table(self, table_name: str) -> bool:
        """Whether the database has a table; see `run_storage`, also for the columns."""
        return is_present(self.postgres_url, table_name, partial(super().has_table, table_name))

    def _has_asset_key_col_on_connection(self, conn: sa.Connection, column_name: str) -> bool:
        look = partial(super()._has_asset_key_col_on_connection, conn, column_name)
        return is_present(self.postgres_url, f"{column_name} of assets", look)

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
            ids = reserved_ids(connection, len(events))
            self._store(
                connection,
                [
                    NewEvent(
                        event_id,
                        self._writer_of(event.run_id).row(
                            planned_outline(event), entry := partial(_itself, event)
                        ),
                        self._tags_for_asset_event(event),
                        entry,
                    )
                    for event_id, event in zip(ids, events, strict=True)
                ],
            )

    def store_images(
        self, step: StepExecutionContext, levels: Sequence[Sequence[ImageEvent]]
    ) -> None:
        """Store events of images in one transaction, without Dagster's objects for most of them.

        Args:
            step: whose events they are.
            levels: of the asset graph; the inputs of each are in those before it.

        Raises:
            Trouble: the database does not answer, again and again.
        """
        retried(self._engine, partial(self._store_levels, step, levels))

    def _store_levels(
        self, step: StepExecutionContext, levels: Sequence[Sequence[ImageEvent]]
    ) -> None:
        now = time.time()
        writer = self._writer_of(step.run_id)
        with self.index_transaction() as connection:
            ids = reserved_ids(connection, sum(map(len, levels)))
            events: list[NewEvent] = []
            # Dagster takes an image for stale when one of its inputs has an event after this one,
            # so it stands behind all that are stored, and behind those of the levels before.
            pointer = ids[0] - 1
            for level in levels:
                for event in level:
                    tags = event.tags(pointer)
                    indexed = self._indexed(tags)
                    outline = materialization_outline(
                        event.asset_key, event.partition, tags, event.metadata, now
                    )
                    entry = partial(_entry, step, event, tags, now)
                    event_id = ids[len(events)]
                    events.append(NewEvent(event_id, writer.row(outline, entry), indexed, entry))
                pointer = events[-1].id
            self._store(connection, events)

    def store_evaluations(
        self, step: StepExecutionContext, evaluations: Sequence[dg.AssetCheckEvaluation]
    ) -> None:
        """Store evaluations of asset checks in one transaction; Dagster's own way takes two each.

        Args:
            step: whose events they are.
            evaluations: of which none answers one that is planned in this run.

        Raises:
            Trouble: the database does not answer, again and again.
        """
        retried(self._engine, partial(self._store_evaluations, step, evaluations))

    def _store_evaluations(
        self, step: StepExecutionContext, evaluations: Sequence[dg.AssetCheckEvaluation]
    ) -> None:
        now = time.time()
        with self.index_transaction() as connection:
            ids = reserved_ids(connection, len(evaluations))
            rows = [
                (self._event_to_row(entry), serialize_value(entry))
                for entry in (_log_entry(step, _check_event(step, one), now) for one in evaluations)
            ]
            copy_evaluations(
                connection,
                [
                    NewEvaluation(event_id, step.run_id, one, row, text)
                    for event_id, one, (row, text) in zip(ids, evaluations, rows, strict=True)
                ],
                SqlEventLogStorageTable.name,
                AssetCheckExecutionsTable.name,
            )

    def are_planned(self, run_id: str, evaluations: Sequence[dg.AssetCheckEvaluation]) -> bool:
        """Whether a run is to execute such checks itself, so that rows wait for an evaluation."""
        table = AssetCheckExecutionsTable.c
        whole = [one for one in evaluations if one.partition is None]
        if not whole:
            return False  # plans are about all partitions
        query = sa.select(
            sa.exists().where(
                table.asset_key.in_(sorted({one.asset_key.to_string() for one in whole})),
                table.check_name.in_(sorted({one.check_name for one in whole})),
                table.run_id == run_id,
            )
        )
        with self.index_connection() as connection:
            return bool(connection.execute(query).scalar())

    def _writer_of(self, run_id: str) -> RowWriter:
        """The templates of a run, kept until another has events."""
        if self._writer is None or self._writer[0] != run_id:
            self._writer = run_id, RowWriter(self._event_to_row)
        return self._writer[1]

    def _indexed(self, tags: Mapping[str, str]) -> Mapping[str, str]:
        return {name: tags[name] for name in self.get_asset_tags_to_index(set(tags))}

    def _store(self, connection: sa.Connection, events: Sequence[NewEvent]) -> None:
        copy_events(connection, events, SqlEventLogStorageTable.name, AssetEventTagsTable.name)
        # The asset table holds the newest event of each asset and kind.
        for event in newest(events):
            self._store_asset_event(connection, event.entry(), event.id)


def _itself(entry: EventLogEntry) -> EventLogEntry:
    return entry


def has_open_backfill(instance: dg.DagsterInstance) -> bool:
    """Whether somebody's backfill has not been turned into runs completely."""
    return bool(instance.get_backfills(status=BulkActionStatus.REQUESTED, limit=1))


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


def report_evaluation(step: StepExecutionContext, evaluation: dg.AssetCheckEvaluation) -> None:
    """Report one evaluation in Dagster's own way."""
    DagsterEvent.asset_check_evaluation(step, evaluation)


def report_level(
    instance: dg.DagsterInstance, step: StepExecutionContext, events: Sequence[ImageEvent]
) -> None:
    """Report events of one level in Dagster's own way, to a storage that is not ours."""
    pointer = instance.event_log_storage.get_maximum_record_id() or 0
    batch_id = str(uuid.uuid4())
    last = len(events) - 1
    for position, event in enumerate(events):
        instance.report_dagster_event(
            _dagster_event(step, event, event.tags(pointer)),
            run_id=step.run_id,
            log_level=logging.DEBUG,
            batch_metadata=DagsterEventBatchMetadata(batch_id, position == last),
        )


def _dagster_event(
    step: StepExecutionContext, event: ImageEvent, tags: Mapping[str, str]
) -> DagsterEvent:
    made = dg.AssetMaterialization(
        event.asset_key,
        partition=event.partition,
        metadata={name: as_dagster(value) for name, value in event.metadata.items()},
        tags=tags,
    )
    return _step_event(
        step, dg.DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(made)
    )


def _entry(
    step: StepExecutionContext, event: ImageEvent, tags: Mapping[str, str], now: float
) -> EventLogEntry:
    return _log_entry(step, _dagster_event(step, event, tags), now)


def _check_event(step: StepExecutionContext, evaluation: dg.AssetCheckEvaluation) -> DagsterEvent:
    outcome = "passed" if evaluation.passed else "did not pass"
    asset = evaluation.asset_key.to_user_string()
    return _step_event(
        step,
        dg.DagsterEventType.ASSET_CHECK_EVALUATION,
        evaluation,
        f"Asset check '{evaluation.check_name}' on '{asset}' {outcome}. "
        f"Description: '{evaluation.description}'",
    )


def _step_event(
    step: StepExecutionContext,
    event_type: dg.DagsterEventType,
    data: StepMaterializationData | dg.AssetCheckEvaluation,
    message: str | None = None,
) -> DagsterEvent:
    return DagsterEvent(
        event_type_value=event_type.value,
        job_name=step.job_name,
        step_handle=step.step.handle,
        node_handle=step.step.node_handle,
        step_kind_value=step.step.kind.value,
        logging_tags=step.event_tags,
        event_specific_data=data,
        message=message,
        pid=os.getpid(),
    )


def _log_entry(step: StepExecutionContext, event: DagsterEvent, now: float) -> EventLogEntry:
    return EventLogEntry(  # type: ignore[no-untyped-call]  # its `__new__` has no types
        error_info=None,
        level=logging.DEBUG,
        user_message="",
        run_id=step.run_id,
        timestamp=now,
        step_key=event.step_key,
        job_name=step.job_name,
        dagster_event=event,
    )
