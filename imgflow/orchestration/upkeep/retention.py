"""Which events of Dagster's log are kept for ever, and which are deleted when they are old.

Kept are all that decide a status in the UI or staleness, or explain why a partition is red. The
rest is deleted in small transactions, so that runs can continue meanwhile, and a retention that is
killed leaves a log with which the next one continues. The queries are in
`dagster_storage.stale_events`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

import dagster as dg

from imgflow.orchestration.dagster_storage.stale_events import (
    EventLog,
    delete_evaluations,
    first_id_since,
    runs_of_evaluations,
    superseded_evaluations,
)
from imgflow.orchestration.families import KIND_TAG, MAINTENANCE_TAG, Family

PAGE_EVENTS = 2_000

# Job name of runs that are launched by selecting assets in the UI.
ASSET_JOB = "__ASSET_JOB"

OVER = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]

# Events that a run's page shows besides its steps, their times and outcomes. Types not listed here
# are kept, including those of later versions of Dagster.
LOG_LINES = (
    None,  # sent to `context.log`
    dg.DagsterEventType.ENGINE_EVENT.value,
    dg.DagsterEventType.STEP_WORKER_STARTING.value,
    dg.DagsterEventType.STEP_WORKER_STARTED.value,
    dg.DagsterEventType.RESOURCE_INIT_STARTED.value,
    dg.DagsterEventType.RESOURCE_INIT_SUCCESS.value,
    dg.DagsterEventType.STEP_INPUT.value,
    dg.DagsterEventType.STEP_OUTPUT.value,
    dg.DagsterEventType.LOADED_INPUT.value,
    dg.DagsterEventType.HANDLED_OUTPUT.value,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,  # its execution has a row of its own
)


@dataclass
class Freed:
    """What a retention deleted, in numbers.

    Attributes:
        materialisations: Those replaced by a newer one of the same asset and partition.
        planned_events: Those that decided no status.
        evaluations: Evaluations of asset checks replaced by a newer one of the same check and
            partition.
        log_lines: Log lines of runs that did not fail, and the last events of deleted runs.
        runs: Runs deleted with all of their events.
        bytes: Size of all deleted events, without indexes.
    """

    materialisations: int = 0
    planned_events: int = 0
    evaluations: int = 0
    log_lines: int = 0
    runs: int = 0
    bytes: int = 0

    def counts(self) -> dict[str, int]:
        """The counts by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def clean_event_log(
    instance: dg.DagsterInstance,
    families: Sequence[Family],
    *,
    jobs: Sequence[str],
    older_than: datetime,
    page_events: int = PAGE_EVENTS,
) -> Freed:
    """Delete events that are older than a moment and no longer decide anything.

    Assets and jobs of other projects in the same instance are left alone.

    Args:
        instance: The instance whose event log to clean.
        families: Only events of these families' assets are deleted.
        jobs: Names of imgflow's jobs. Their runs are deleted once they have no asset events left.
        older_than: A time with its zone.
        page_events: Maximum events that one statement reads or deletes.

    Raises:
        SettingsError: The instance does not keep its events in PostgreSQL.
    """
    # In this order: the run of an event below `before` existed by then, so if it is not unfinished
    # afterwards, it is over.
    before = first_id_since(instance, older_than)
    unfinished = instance.get_run_ids(
        dg.RunsFilter(statuses=[status for status in dg.DagsterRunStatus if status not in OVER])
    )
    log = EventLog(instance, before, unfinished, page_events)
    freed = Freed()
    assets = [key for family in families for key in instance.get_asset_keys([family.kind])]

    for key in assets:
        freed.materialisations += _delete(log, log.superseded_materializations(key), freed)
    freed.planned_events += _delete(log, log.superseded_plans(assets), freed)
    freed.planned_events += _delete(log, log.answered_plans(assets), freed)
    # The audit also evaluates checks of assets that have no materialisation yet.
    names = [(family, name) for family in families for name in (*family.outputs, "metadata")]
    for key in {*assets, *(family.output(name) for family, name in names)}:
        for evaluations in superseded_evaluations(log, key):
            sizes = delete_evaluations(log, evaluations)
            freed.evaluations += len(sizes)
            freed.bytes += 2 * sum(sizes)  # the table of checks has a copy of each event
    for event_type in LOG_LINES:
        for page in log.log_lines(event_type):
            quiet = _without_failure(instance, {row.run_id for row in page}, jobs, assets)
            ids = [row.id for row in page if row.run_id in quiet]
            freed.log_lines += _delete(log, [ids], freed)
    for job in jobs:
        _delete_runs(log, job, older_than, freed)
    return freed


def _delete(log: EventLog, pages: Iterable[list[int]], freed: Freed) -> int:
    deleted = 0
    for ids in pages:
        sizes = log.delete(ids)
        deleted += len(sizes)
        freed.bytes += sum(sizes)
    return deleted


def _without_failure(
    instance: dg.DagsterInstance,
    run_ids: set[str],
    jobs: Sequence[str],
    assets: Sequence[dg.AssetKey],
) -> set[str]:
    """Those of the runs that are ours, are over and did not fail, so have nothing to explain."""
    runs = instance.get_runs(dg.RunsFilter(run_ids=sorted(run_ids)))
    return {
        run.run_id
        for run in runs
        if _is_own(run, jobs, assets) and run.is_finished and not run.is_failure
    }


def _is_own(run: dg.DagsterRun, jobs: Sequence[str], assets: Sequence[dg.AssetKey]) -> bool:
    """Whether a run is imgflow's; another project in the instance may have a job of that name."""
    if run.job_name == ASSET_JOB:
        checks = run.asset_check_selection or frozenset()
        touched = {*(run.asset_selection or ()), *(check.asset_key for check in checks)}
        return bool(touched) and touched <= set(assets)
    return run.job_name in jobs and not {KIND_TAG, MAINTENANCE_TAG}.isdisjoint(run.tags)


def _delete_runs(log: EventLog, job: str, older_than: datetime, freed: Freed) -> None:
    """Delete the runs of a job that are over and old and have no asset events left."""
    old = log.instance.get_run_ids(
        dg.RunsFilter(job_name=job, statuses=OVER, updated_before=older_than)
    )
    shown = runs_of_evaluations(log.instance)
    for start in range(0, len(old), log.page_events):
        runs = log.instance.get_runs(dg.RunsFilter(run_ids=old[start : start + log.page_events]))
        page = [run.run_id for run in runs if _is_own(run, [job], ())]
        leaving = [run_id for run_id in log.runs_without_assets(page) if run_id not in shown]
        # Events first: without their run, nothing would find them again.
        if leaving:
            freed.log_lines += _delete(log, log.events_of(leaving), freed)
        for run_id in leaving:
            log.instance.delete_run(run_id)
            freed.runs += 1
