"""Which runs over partitions are live (queued or active), and which only look so.

What a dead run leaves undone is recorded by `catalog.postgres.run_locks`; new runs are requested in
`requests`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.postgres.run_locks import Hold
from imgflow.orchestration.dagster_storage.event_log import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from imgflow.orchestration.families import Family
from imgflow.orchestration.runs.execute import asked_batch, batch_of

# Maximum time from the start of a run to the lock on its batch, most of it imports, and from its
# last event to its end.
GRACE_SECONDS = 60

# How long the code server gets to report the signal that ended a process it started. It checks
# twice a second, and opens an instance to report it.
WORD_SECONDS = 3.0
LOOK_SECONDS = 0.1

# Marks runs that `imgflow ingest` executes in its own process.
INGEST_TAG = "imgflow/ingest"

PARTITION_TAGS = (
    ASSET_PARTITION_RANGE_START_TAG,
    ASSET_PARTITION_RANGE_END_TAG,
    PARTITION_NAME_TAG,
)

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
GOING_ON = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


@dataclass(frozen=True)
class UnfinishedRun:
    """A run over partitions that is queued or active.

    Attributes:
        kind: Kind of its images; None if the run is not ours.
        batch: Name of its batch in the catalogue; None if neither a sensor nor `imgflow ingest`
            requested it.
        bounds: Partition keys in its tags: the ends of its range, or its single partition.
    """

    run: dg.DagsterRun
    kind: str | None
    batch: str | None
    bounds: frozenset[str]


def unfinished_runs(
    instance: dg.DagsterInstance, catalog: PostgresCatalog, families: Sequence[Family]
) -> list[UnfinishedRun]:
    """All runs over partitions that are queued or active.

    To Dagster, a run whose process died silently looks active for ever. It is marked as failed
    here, and what it did not report is marked in the catalogue, so that its images are requested
    again.
    """
    abandoned = {hold.run_id for hold in catalog.holds.abandoned()}
    unfinished: Sequence[dg.RunRecord] = ()
    if instance.get_runs(dg.RunsFilter(statuses=UNFINISHED), limit=1):
        # Only if there are any: Dagster inspects its table's columns each time it reads records.
        unfinished = instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED))
    holds = catalog.holds.of_runs([record.dagster_run.run_id for record in unfinished])
    alive = []
    for record in unfinished:
        run = record.dagster_run
        bounds = frozenset(run.tags[tag] for tag in PARTITION_TAGS if tag in run.tags)
        if not bounds:
            continue
        kind = _kind(run, families)
        if kind and (run.run_id in abandoned or _is_dead(record, holds, catalog, families)):
            _report_dead(instance, run.run_id)
        else:
            alive.append(UnfinishedRun(run, kind, asked_batch(run), bounds))
    # Including runs that Dagster knows have ended, by an error between rows and events or by an
    # operator.
    catalog.holds.take_up(sorted(abandoned))
    return alive


def _report_dead(instance: dg.DagsterInstance, run_id: str) -> None:
    """Mark a run as failed, unless the code server does so, which can name the cause."""
    give_up = time.monotonic() + WORD_SECONDS
    while (run := instance.get_run_by_id(run_id)) is not None and run.status in UNFINISHED:
        if time.monotonic() > give_up or not _is_watched(instance, run):
            instance.report_run_failed(
                run, "The process of this run ended without a word; its images are asked for again."
            )
            return
        time.sleep(LOOK_SECONDS)


def _is_watched(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a code server started the process of a run, and so waits for its end."""
    return isinstance(instance.run_launcher, dg.DefaultRunLauncher) and INGEST_TAG not in run.tags


def active_batches(runs: Sequence[UnfinishedRun], family: Family) -> list[str]:
    """Names of a family's batches whose runs are queued or active."""
    return [run.batch for run in runs if run.batch and run.kind == family.kind]


def _kind(run: dg.DagsterRun, families: Sequence[Family]) -> str | None:
    """The kind of images a run processes, whether started by job or from an asset's page."""
    selected = run.asset_selection or frozenset()
    for family in families:
        if run.job_name == family.job or not selected.isdisjoint(family.made):
            return family.kind
    return None


def _is_dead(
    record: dg.RunRecord,
    holds: Mapping[str, Hold],
    catalog: PostgresCatalog,
    families: Sequence[Family],
) -> bool:
    """Whether a run not known to be abandoned has lost its process nevertheless."""
    run = record.dagster_run
    hold = holds.get(run.run_id)
    if hold is not None and hold.ended_at is None:
        return False  # its process is alive, or it is too early to tell
    if catalog.holds.is_held(batch_of(run)):
        return False
    if INGEST_TAG in run.tags:  # its process locks the batch before it creates the run
        return True
    if run.status not in GOING_ON or record.start_time is None:
        return False  # Dagster itself watches runs that do not start
    ours = frozenset().union(*(family.made for family in families))
    if run.asset_selection and not run.asset_selection <= ours:
        return False  # it may be busy with assets downstream of ours
    since = hold.ended_at.timestamp() if hold and hold.ended_at else record.start_time
    return time.time() - since > GRACE_SECONDS
