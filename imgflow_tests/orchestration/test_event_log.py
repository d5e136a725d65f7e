"""The contract with Dagster's private names: each test names what stopped working."""

import os

import dagster as dg
import pytest
import sqlalchemy as sa

from imgflow.errors import SettingsError
from imgflow.orchestration.dagster_storage.event_log import (
    BATCH_VARIABLE,
    AssetEventTagsTable,
    AssetKeyTable,
    BulkPostgresEventLogStorage,
    SqlEventLogStorageTable,
    has_open_backfill,
)
from imgflow.orchestration.dagster_storage.queries import (
    count_partitions,
    delete_partitions,
    event_log_transaction,
    input_pointer_pattern,
)
from imgflow.orchestration.runs.image_events import ImageEvent, report_images
from imgflow_tests.orchestration.project import Project

KEYS = [f"k{number:03d}" for number in range(50)]
FAILING = {"k007", "k042"}
things = dg.DynamicPartitionsDefinition(name="things")


@dg.multi_asset(
    specs=[
        dg.AssetSpec(name, skippable=True, code_version="c1", deps=["origin"])
        for name in ("one", "two")
    ],
    partitions_def=things,
    backfill_policy=dg.BackfillPolicy.single_run(),
    can_subset=True,
)
def both(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]
    report_images(
        context,
        [
            ImageEvent(
                dg.AssetKey(name),
                key,
                data_version=f"{name}-{key}",
                code_version="c1",
                inputs={dg.AssetKey("origin"): f"origin-{key}"},
                metadata={"text": 'tab\t "quote" \\ back\nline', "number": len(key)},
            )
            for key in context.partition_keys
            if key not in FAILING
            for name in ("one", "two")
        ],
    )
    yield from ()
    raise dg.Failure("some failed", allow_retries=False)


@pytest.fixture
def run(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    instance.add_dynamic_partitions("things", KEYS)
    job = dg.Definitions(
        assets=[both], jobs=[dg.define_asset_job("job", selection=dg.AssetSelection.all())]
    ).resolve_job_def("job")
    return job.execute_in_process(
        {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        instance=instance,
        tags={
            "dagster/asset_partition_range_start": KEYS[0],
            "dagster/asset_partition_range_end": KEYS[-1],
        },
        raise_on_error=False,
    )


def test_the_instance_uses_the_bulk_storage_and_sends_batches(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.event_log_storage, BulkPostgresEventLogStorage)
    assert int(os.environ[BATCH_VARIABLE]) > 1


def test_exactly_the_images_without_events_are_marked_failed(
    instance: dg.DagsterInstance, run: dg.ExecuteInProcessResult
) -> None:
    assert not run.success
    for name in ("one", "two"):
        statuses = instance.get_status_by_partition(dg.AssetKey(name), KEYS, things) or {}
        found = {key: status.name if status else None for key, status in statuses.items()}
        assert found == {key: "FAILED" if key in FAILING else "MATERIALIZED" for key in KEYS}


@pytest.mark.usefixtures("run")
def test_every_image_keeps_its_own_version_metadata_and_provenance(
    instance: dg.DagsterInstance,
) -> None:
    records = instance.fetch_materializations(dg.AssetKey("two"), limit=100).records
    found = {record.partition_key: record.asset_materialization for record in records}
    assert set(found) == set(KEYS) - FAILING
    one = found["k003"]
    assert one is not None
    pointer = one.tags.pop("dagster/input_event_pointer/origin")  # type: ignore[attr-defined]
    assert int(pointer) > 0
    assert one.tags == {
        "dagster/data_version": "two-k003",
        "dagster/data_version_is_user_provided": "true",
        "dagster/code_version": "c1",
        "dagster/input_data_version/origin": "origin-k003",
    }
    assert one.metadata["text"].value == 'tab\t "quote" \\ back\nline'


@pytest.mark.usefixtures("run")
def test_the_newest_event_of_each_asset_is_the_one_its_page_shows(
    instance: dg.DagsterInstance,
) -> None:
    for name in ("one", "two"):
        event = instance.get_latest_materialization_event(dg.AssetKey(name))
        assert event is not None
        assert event.asset_materialization is not None
        assert event.asset_materialization.partition == KEYS[-1]
        newest = instance.fetch_materializations(dg.AssetKey(name), limit=1).records[0]
        assert newest.partition_key == KEYS[-1]


@pytest.mark.usefixtures("run")
def test_tags_are_indexed_as_dagster_indexes_them(instance: dg.DagsterInstance) -> None:
    with instance.event_log_storage.index_connection() as connection:  # type: ignore[attr-defined]
        keys = (
            connection.execute(sa.text("SELECT DISTINCT key FROM asset_event_tags")).scalars().all()
        )
        count = connection.execute(sa.text("SELECT count(*) FROM asset_event_tags")).scalar()
    assert keys == ["dagster/data_version"]
    assert count == 2 * (len(KEYS) - len(FAILING))


def test_partitions_are_read_in_the_order_in_which_they_were_added(
    instance: dg.DagsterInstance,
) -> None:
    assert instance.get_dynamic_partitions("odd") == []
    odd = ["b", "a", "NULL", "", '"', "\\", "{x,y}", "é, ü", "line\nbreak", "%s :name"]
    for key in odd:
        instance.add_dynamic_partitions("odd", [key])
    assert instance.get_dynamic_partitions("odd") == odd
    assert count_partitions(instance, "odd") == len(odd)
    delete_partitions(instance, "odd", odd[:3])
    assert instance.get_dynamic_partitions("odd") == odd[3:]
    assert count_partitions(instance, "odd") == len(odd) - 3


def test_a_batch_is_a_few_statements_whatever_its_size(instance: dg.DagsterInstance) -> None:
    statements: list[str] = []
    engine = instance.event_log_storage._engine  # type: ignore[attr-defined]
    sa.event.listen(
        engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
    )
    instance.add_dynamic_partitions("things", KEYS)
    job = dg.Definitions(
        assets=[both], jobs=[dg.define_asset_job("job", selection=dg.AssetSelection.all())]
    ).resolve_job_def("job")
    job.execute_in_process(
        {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        instance=instance,
        tags={
            "dagster/asset_partition_range_start": KEYS[0],
            "dagster/asset_partition_range_end": KEYS[-1],
        },
        raise_on_error=False,
    )
    assert len(statements) < 120, "events are stored one by one"


def test_a_batch_that_cannot_be_stored_whole_is_not_stored_at_all(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgflow.orchestration.dagster_storage import event_rows

    storage = project.instance.event_log_storage
    copies = []
    copy = event_rows.copy_rows

    def break_at_the_second(connection: object, table: str, *rest: object) -> None:
        copies.append(table)
        if table == "asset_event_tags":
            raise RuntimeError("the connection broke")
        copy(connection, table, *rest)  # type: ignore[arg-type]

    entries = [
        entry.event_log_entry
        for entry in storage.get_event_records(
            dg.EventRecordsFilter(dg.DagsterEventType.ASSET_MATERIALIZATION)
        )
    ]
    assert entries == []
    monkeypatch.setattr(event_rows, "copy_rows", break_at_the_second)
    with pytest.raises(RuntimeError, match="broke"):
        storage.store_event_batch(_two_events())
    assert copies == ["event_logs", "asset_event_tags"]
    with storage.index_connection() as connection:  # type: ignore[attr-defined]
        assert connection.execute(sa.text("SELECT count(*) FROM event_logs")).scalar() == 0


@pytest.mark.usefixtures("run")
def test_a_stored_event_holds_the_pointer_to_its_input(instance: dg.DagsterInstance) -> None:
    records = instance.fetch_materializations(dg.AssetKey("one"), limit=100).records
    with event_log_transaction(instance) as connection:
        found = connection.execute(
            sa.select(
                SqlEventLogStorageTable.c.id,
                sa.func.substring(
                    SqlEventLogStorageTable.c.event, input_pointer_pattern(dg.AssetKey("origin"))
                ),
            )
        ).all()
    pointers = {event_id: pointer for event_id, pointer in found if pointer}
    for record in records:
        assert record.asset_materialization is not None
        tags = record.asset_materialization.tags or {}
        assert pointers[record.storage_id] == tags["dagster/input_event_pointer/origin"]


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        (
            SqlEventLogStorageTable,
            "id run_id event dagster_event_type timestamp step_key asset_key partition",
        ),
        (AssetEventTagsTable, "id event_id asset_key key value event_timestamp"),
        (
            AssetKeyTable,
            "id asset_key last_materialization last_run_id asset_details wipe_timestamp"
            " last_materialization_timestamp tags create_timestamp cached_status_data",
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_tables_that_the_retention_deletes_from_are_as_they_were(
    instance: dg.DagsterInstance, table: sa.Table, columns: str
) -> None:
    with event_log_transaction(instance) as connection:
        stored = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
    assert stored == set(table.columns.keys()) == set(columns.split())


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("idx_events_by_asset_partition", "asset_key dagster_event_type partition id"),
        ("idx_events_by_asset", "asset_key dagster_event_type id"),
        ("idx_event_type", "dagster_event_type id"),
        ("idx_events_by_run_id", "run_id id"),
        ("idx_asset_event_tags_event_id", "event_id"),
    ],
)
def test_the_indexes_that_the_retention_reads_through_are_there(
    instance: dg.DagsterInstance, name: str, columns: str
) -> None:
    with event_log_transaction(instance) as connection:
        inspector = sa.inspect(connection)
        found = {
            index["name"]: index["column_names"]
            for table in (SqlEventLogStorageTable, AssetEventTagsTable)
            for index in inspector.get_indexes(table.name)
        }
    assert found[name] == columns.split()


def test_only_these_tables_refer_to_events(instance: dg.DagsterInstance) -> None:
    with event_log_transaction(instance) as connection:
        inspector = sa.inspect(connection)
        referring = {
            table
            for table in inspector.get_table_names()
            for column in inspector.get_columns(table)
            if column["name"].endswith("event_id") or column["name"].endswith("event_storage_id")
        }
    assert referring == {"asset_event_tags", "asset_check_executions"}


def test_an_event_log_elsewhere_is_refused_by_name() -> None:
    with (
        dg.instance_for_test() as elsewhere,
        pytest.raises(SettingsError, match=r"SqliteEventLogStorage.*IMGFLOW_KEEP_EVENTS_DAYS"),
    ):
        event_log_transaction(elsewhere)


def test_an_open_backfill_is_seen(instance: dg.DagsterInstance) -> None:
    from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

    assert not has_open_backfill(instance)
    instance.add_backfill(
        PartitionBackfill(
            backfill_id="b",
            status=BulkActionStatus.REQUESTED,
            from_failure=False,
            tags={},
            backfill_timestamp=0.0,
            serialized_asset_backfill_data="{}",
        )
    )
    assert has_open_backfill(instance)


def _two_events():  # type: ignore[no-untyped-def]
    from dagster._core.events import DagsterEvent, StepMaterializationData
    from dagster._core.events.log import EventLogEntry

    return [
        EventLogEntry(
            error_info=None,
            level=10,
            user_message="",
            run_id="run",
            timestamp=1.0,
            dagster_event=DagsterEvent(
                event_type_value="ASSET_MATERIALIZATION",
                job_name="job",
                event_specific_data=StepMaterializationData(
                    dg.AssetMaterialization(
                        "one", partition=key, tags={"dagster/data_version": key}
                    )
                ),
            ),
        )
        for key in ("a", "b")
    ]
