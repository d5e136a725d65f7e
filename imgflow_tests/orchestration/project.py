"""A whole imgflow in one process: real stores, database, Dagster instance and sensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import dagster as dg
import sqlalchemy as sa

from imgflow.assembly import build_batching, build_definitions, build_families, build_resources
from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres.ownership import claim
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import kind_of
from imgflow.errors import Trouble
from imgflow.orchestration.dagster_storage.event_log import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from imgflow.orchestration.sensing.listing import following
from imgflow.service.ingest import QUIET, IngestReport, ingest
from imgflow.settings.variables import Settings
from imgflow.store.config import StoreConfig
from imgflow.store.objects import Source
from imgflow.store.output_store import OutputStore

PHOTO_ASSETS = ("grayscale", "thumbnail", "metadata")
SETS = {"photo": "photos", "depth": "depth_images"}


@dataclass
class Project:
    """imgflow on one machine."""

    settings: Settings
    instance: dg.DagsterInstance

    def __post_init__(self) -> None:
        self.stores = StoreConfig(
            self.settings.source_url, self.settings.output_url, home=str(self.settings.home)
        )
        source, _ = self.stores.locations()
        if source.scheme == "file":
            source.folder.mkdir(parents=True, exist_ok=True)
        self.source: Source = self.stores.open_source()
        self.outputs: OutputStore = self.stores.open_outputs()
        self.catalog = PostgresCatalog(make_engine(self.settings.database_url), source.url)
        self.catalog.migrate()
        self.families = build_families(self.settings)
        self.definitions = build_definitions(self.settings)

    def ingest(self) -> IngestReport:
        """As `imgflow ingest`."""
        with suppress(Trouble):
            claim(self.catalog, self.outputs)
        return ingest(
            self.source,
            self.catalog,
            self.instance,
            self.definitions,
            build_families(self.settings),
            batching=build_batching(self.settings),
            follow=following(
                self.catalog, self.source, lambda: self.outputs, self.settings.on_delete
            ),
            progress=lambda _line: None,
        )

    def tick(self, cursor: str | None = None) -> dg.SensorResult:
        """One evaluation of the sensor, as the daemon does it; nothing is launched."""
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=cursor,
            resources=build_resources(self.settings),
        )
        result = self.definitions.resolve_sensor_def("arrivals")(context)
        assert isinstance(result, dg.SensorResult)
        for request in result.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions(
                request.partitions_def_name, list(request.partition_keys)
            )
        return result

    def run_requests(self, result: dg.SensorResult) -> list[dg.ExecuteInProcessResult]:
        """Execute what a tick asked for."""
        return [
            self.definitions.resolve_job_def(str(request.job_name)).execute_in_process(
                QUIET, instance=self.instance, tags=dict(request.tags), raise_on_error=False
            )
            for request in result.run_requests or ()
        ]

    def materialize(
        self, partitions: Sequence[str], *, assets: Sequence[str] = (), force: bool = False
    ) -> dg.ExecuteInProcessResult:
        """As an operator does in the UI: a run over a range of partitions that bears no batch."""
        kind = kind_of(partitions[0])
        job = self.definitions.resolve_job_def(
            "process_depth_images" if kind == "depth" else "process_photos"
        )
        config = {"ops": {f"{kind}_outputs": {"config": {"force": force}}}}
        return job.execute_in_process(
            {**QUIET, **config},
            instance=self.instance,
            tags={
                ASSET_PARTITION_RANGE_START_TAG: partitions[0],
                ASSET_PARTITION_RANGE_END_TAG: partitions[-1],
            },
            asset_selection=[dg.AssetKey([kind, name]) for name in assets] or None,
            raise_on_error=False,
        )

    def night(self, *jobs: str, config: Mapping[str, Any] | None = None) -> dict[str, str]:
        """Run the jobs of a night, or these only, and return why those that failed did."""
        failed = {}
        for name in jobs or ("backfill_stale", "reconcile", "retention"):
            job = self.definitions.resolve_job_def(name)
            result = job.execute_in_process(
                dict(config or {}), instance=self.instance, raise_on_error=False
            )
            if not result.success:
                errors = [
                    str(event.step_failure_data.error_display_string)
                    for event in result.all_events
                    if event.event_type_value == "STEP_FAILURE"
                ]
                failed[name] = "\n".join(errors)
        return failed

    def end_pauses(self) -> None:
        """Let the pauses before the next attempt be over."""
        with self.catalog.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE images SET not_before = NULL")

    def statuses(self, asset: str) -> Mapping[str, str]:
        """What colour the UI gives every partition of an asset: green, red or none."""
        kind, _ = asset.split("/")
        key = dg.AssetKey(asset.split("/"))
        definition = dg.DynamicPartitionsDefinition(name=SETS[kind])
        keys = self.instance.get_dynamic_partitions(SETS[kind])
        found = self.instance.get_status_by_partition(key, keys, definition) or {}
        colours = {"MATERIALIZED": "green", "FAILED": "red"}
        return {
            partition: colours.get(status.name, status.name) if status else "none"
            for partition, status in found.items()
        }

    def newest(self, asset: str, partition: str) -> dg.AssetMaterialization:
        """The newest materialisation of one image."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(
                asset_key=dg.AssetKey(asset.split("/")), asset_partitions=[partition]
            ),
            limit=1,
        ).records
        materialization = records[0].asset_materialization
        assert materialization is not None
        return materialization

    def runs(self) -> list[dg.DagsterRun]:
        return list(self.instance.get_runs())

    def rows(self) -> list[tuple[Any, ...]]:
        """The whole table, for comparing before and after."""
        with self.catalog.engine.connect() as connection:
            return [
                tuple(row)
                for row in connection.execute(
                    sa.text("SELECT images.*, xmin::text FROM images ORDER BY id")
                )
            ]

    def stored(self) -> dict[str, tuple[int, object]]:
        """Every output with its size and time of writing."""
        return {output.name: (output.size, output.last_modified) for output in self.outputs.names()}
