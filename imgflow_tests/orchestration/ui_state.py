"""Everything that the UI concludes from the event log, for comparing before and after."""

from __future__ import annotations

from typing import Any

import dagster as dg

# Staleness is public in GraphQL only, for which each project would need a webserver of its own.
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from imgflow_tests.orchestration.project import SETS, Project


def ui_state(project: Project) -> dict[str, Any]:
    """What is compared: every value is plain or of Dagster's own records.

    Statuses are asked for twice, from Dagster's cache of them and without it.
    """
    keys = sorted(project.instance.get_asset_keys())
    cached = {key.to_user_string(): _statuses(project, key) for key in keys}
    records = _records(project, keys)
    for key in keys:
        project.instance.event_log_storage.wipe_asset_cached_status(key)  # type: ignore[attr-defined]
    return {
        "statuses from the cache": cached,
        "statuses": {key.to_user_string(): _statuses(project, key) for key in keys},
        "records": records,
        "badges": {key.to_user_string(): _planned_run(project, key) for key in keys},
        "newest": {
            (key.to_user_string(), partition): _newest(project, key, partition)
            for key in keys
            for partition in _partitions(project, key)
        },
        "staleness": _staleness(project, keys),
        "pages of partitions": {
            (key.to_user_string(), partition): _run_of_page(project, key, partition)
            for key in keys
            for partition in _partitions(project, key)
        },
        "reasons": _reasons(project, keys),
        "checks": _checks(project),
    }


def _checks(project: Project) -> dict[str, Any]:
    """What each check says of the asset and of each partition, and of the runs it leads to."""
    graph = project.definitions.get_repository_def().asset_graph
    checks = sorted(graph.asset_check_keys, key=str)
    storage = project.instance.event_log_storage
    summaries = storage.get_asset_check_summary_records(checks)
    shown: dict[str, Any] = {str(key): summaries[key] for key in checks}
    infos = storage.get_asset_check_partition_info(checks)
    shown["partitions"] = sorted(infos, key=str)
    shown["of the asset"] = storage.get_latest_asset_check_execution_by_key(checks)
    shown["runs"] = {
        record.run_id: record.run_id and project.instance.get_run_by_id(record.run_id)
        for record in shown["of the asset"].values()
    }
    return shown


def _partitions(project: Project, key: dg.AssetKey) -> list[str]:
    """Also those that were deleted."""
    return sorted(
        {
            *project.instance.get_dynamic_partitions(SETS[key.path[0]]),
            *project.instance.get_materialized_partitions(key),
        }
    )


def _statuses(project: Project, key: dg.AssetKey) -> dict[str, str]:
    return dict(project.statuses(key.to_user_string()))


def _records(project: Project, keys: list[dg.AssetKey]) -> dict[str, Any]:
    return {
        record.asset_entry.asset_key.to_user_string(): (
            record.asset_entry.last_materialization_record,
            record.asset_entry.last_run_id,
            record.asset_entry.cached_status,
        )
        for record in project.instance.get_asset_records(keys)
    }


def _newest(project: Project, key: dg.AssetKey, partition: str) -> Any:
    records = project.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition]), limit=1
    ).records
    if not records:
        return None
    (record,) = records
    indexed = project.instance.event_log_storage.get_event_tags_for_asset(
        key, filter_event_id=record.storage_id
    )
    run = project.instance.get_run_by_id(record.run_id)
    return record.storage_id, record.event_log_entry, indexed, run and run.status


def _staleness(project: Project, keys: list[dg.AssetKey]) -> dict[tuple[str, str], Any]:
    resolver = CachingStaleStatusResolver(
        project.instance,
        project.definitions.get_repository_def().asset_graph,
        LoadingContextForTest(project.instance),
    )
    return {
        (key.to_user_string(), partition): (
            resolver.get_status(key, partition).value,
            [cause.reason for cause in resolver.get_stale_causes(key, partition)],
        )
        for key in keys
        for partition in project.instance.get_dynamic_partitions(SETS[key.path[0]])
    }


def _planned_run(project: Project, key: dg.AssetKey, partition: str | None = None) -> Any:
    planned = project.instance.get_latest_planned_materialization_info(key, partition)
    if planned is None:
        return None
    run = project.instance.get_run_by_id(planned.run_id)
    return planned.run_id, run and run.status


def _run_of_page(project: Project, key: dg.AssetKey, partition: str) -> Any:
    """The run that a partition's page names beside that of its newest materialisation."""
    planned = _planned_run(project, key, partition)
    newest = _newest(project, key, partition)
    return None if newest and planned and planned[0] == newest[1].run_id else planned


def _reasons(project: Project, keys: list[dg.AssetKey]) -> dict[tuple[str, str], Any]:
    """Why red partitions are red: the whole log of their runs."""
    return {
        (key.to_user_string(), partition): project.instance.all_logs(
            _planned_run(project, key, partition)[0],
            of_type={dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE},
        )
        for key in keys
        for partition, colour in _statuses(project, key).items()
        if colour == "red"
    }
