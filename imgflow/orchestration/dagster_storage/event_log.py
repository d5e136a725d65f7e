"""An event log that stores events in bulk; the one module that imports Dagster's private names.

Why it exists, as of dagster 1.13.27: in a run over a range of partitions, the public interface
gives all of them the same metadata and data version, or costs 26 to 123 ms per event. Here each
image has its own events, and those of a few hundred images are stored with `COPY` in one
transaction. Serialising rows and the COPY itself are in `event_rows`, reading in `queries`.

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

# Dagster sends events in batches only if this variable is set in every process that creates or
# executes runs. All of them load the storage class below, so it sets the variable, and deployments
# need not.
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
        partition: The image's partition key.
        data_version: Changes exactly when the output does.
        code_version: Fingerprint of the recipe; None for external assets.
        inputs: Data versions of the assets it was made from, by which Dagster judges staleness.
        metadata: What the UI shows; `event_rows` has types for Markdown and links.
    """

    asset_key: dg.AssetKey
    partition: str
    data_version: str
    code_version: str | None = None
    inputs: Mapping[dg.AssetKey, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def tags(self, pointer: int) -> dict[str, str]:
        """Versions and provenance as event tags, in Dagster's form.

        Args:
            pointer: Id of the newest event that the inputs can have had when this was made.
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
        # The parent opens a connection for each statement, about forty in a run, at 2 ms each.
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
        """Also close the connection that is kept open."""
        super().dispose()
        self._engine.dispose()

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> BulkPostgresEventLogStorage:
        """Make the storage that `dagster.yaml` names; the parent's method would make a parent."""
        return cls(
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
        )

    def has_table(self, table_name: str) -> bool:
        """Whether the database has a table; remembers a yes, for the reason given in `storages`."""
        return is_present(self.postgres_url, table_name, partial(super().has_table, table_name))

    def _has_asset_key_col_on_connection(self, conn: sa.Connection, column_name: str) -> bool:
        look = partial(super()._has_asset_key_col_on_connection, conn, column_name)
        return is_present(self.postgres_url, f"{column_name} of assets", look)

    def get_dynamic_partitions(self, partitions_def_name: str) -> Sequence[str]:
        """Read all keys as one array, which is ten times as fast as 100,000 rows.

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
        """Delete many partitions in one statement; Dagster needs two for each."""
        with self.index_transaction() as connection:
            connection.execute(
                DynamicPartitionsTable.delete().where(
                    DynamicPartitionsTable.c.partitions_def_name == partitions_def_name,
                    DynamicPartitionsTable.c.partition == sa.any_(sa.literal(list(keys), TEXTS)),
                )
            )

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store all events of a batch or, if the database refuses, none.

        Dagster retries the events of a failed batch one by one, so those of a partly stored batch
        would be stored twice.
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
        """Store events of images in one transaction, mostly without creating Dagster's objects.

        Args:
            step: The running step that the events belong to.
            levels: Events by level of the asset graph; inputs are in earlier levels.

        Raises:
            Trouble: The database did not answer, even after retries.
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
            # Dagster considers an image stale if one of its inputs has an event after this id, so
            # it must follow all stored events and those of the earlier levels.
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
        """Store evaluations of asset checks in one transaction; Dagster needs two for each.

        Args:
            step: The running step that the evaluations belong to.
            evaluations: None of them may be planned in this run; see `are_planned`.

        Raises:
            Trouble: The database did not answer, even after retries.
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
        """Whether the run plans any of these checks, so that rows wait for their evaluations."""
        table = AssetCheckExecutionsTable.c
        whole = [one for one in evaluations if one.partition is None]
        if not whole:
            return False  # checks are planned without a partition
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
        """The templates of a run, kept until another run has events."""
        if self._writer is None or self._writer[0] != run_id:
            self._writer = run_id, RowWriter(self._event_to_row)
        return self._writer[1]

    def _indexed(self, tags: Mapping[str, str]) -> Mapping[str, str]:
        return {name: tags[name] for name in self.get_asset_tags_to_index(set(tags))}

    def _store(self, connection: sa.Connection, events: Sequence[NewEvent]) -> None:
        copy_events(connection, events, SqlEventLogStorageTable.name, AssetEventTagsTable.name)
        # The table of assets holds the newest event of each asset and type.
        for event in newest(events):
            self._store_asset_event(connection, event.entry(), event.id)


def _itself(entry: EventLogEntry) -> EventLogEntry:
    return entry


def has_open_backfill(instance: dg.DagsterInstance) -> bool:
    """Whether any backfill still has runs to launch."""
    return bool(instance.get_backfills(status=BulkActionStatus.REQUESTED, limit=1))


def report_counts(
    context: dg.AssetExecutionContext, message: str, counts: Mapping[str, int]
) -> None:
    """Log a message of the running step with counts as its metadata.

    Dagster's public way, output metadata, needs an output, which would stand for all partitions.
    """
    metadata = {name: dg.MetadataValue.int(count) for name, count in counts.items()}
    DagsterEvent.engine_event(
        context.get_step_execution_context(), message, EngineEventData(metadata)
    )


def report_evaluation(step: StepExecutionContext, evaluation: dg.AssetCheckEvaluation) -> None:
    """Report one evaluation through Dagster itself."""
    DagsterEvent.asset_check_evaluation(step, evaluation)


def report_level(
    instance: dg.DagsterInstance, step: StepExecutionContext, events: Sequence[ImageEvent]
) -> None:
    """Report events of one level through Dagster itself, to a storage that is not ours."""
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
