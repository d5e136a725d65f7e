"""The jobs `backfill_stale`, `reconcile` and `retention`, and their nightly schedules.

What they do is in `reconcile` and `retention`; the nightly audit is in `checks.asset_checks`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from imgflow.errors import NotOurs, TooMany
from imgflow.orchestration.checks.asset_checks import AUDIT_JOB
from imgflow.orchestration.families import MAINTENANCE_TAG, Family
from imgflow.orchestration.resources import CatalogResource, StoresResource
from imgflow.orchestration.sensing.listing import opened
from imgflow.orchestration.upkeep.reconcile import Selection, as_metadata, backfill_stale, reconcile
from imgflow.orchestration.upkeep.retention import clean_event_log
from imgflow.settings.variables import OnDelete

WHAT = {
    "backfill_stale": "Makes images pending that lack an output or have one of another recipe, "
    "or those that its configuration selects; the sensor asks for them.",
    "reconcile": "Compares bucket, catalogue, outputs and partitions, and repairs differences.",
    "retention": "Deletes old events that decide no status any more, and runs without others.",
}
"""Descriptions of the jobs, of the one op of each, and of their schedules."""

# If run and code server are killed together, nothing else would notice that such a run is over.
BOUNDED = {"dagster/max_runtime": str(6 * 3_600), MAINTENANCE_TAG: "true"}


class BackfillConfig(dg.Config):
    """What an operator may set in the launchpad; the nightly schedule leaves it as it is."""

    prefix: str = Field(default="", description="Only images whose key begins so.")
    rejected: bool = Field(default=False, description="The rejected ones too.")
    force: bool = Field(
        default=False, description="All ready ones; all of their outputs are made again."
    )


class ReconcileConfig(dg.Config):
    """What an operator may set in the launchpad; the nightly schedule leaves it as it is."""

    allow_many: bool = Field(
        default=False,
        description="Delete and make again however much differs; for once, when a run has stopped "
        "at the number and it is right.",
    )


def maintenance(
    families: Sequence[Family], *, on_delete: OnDelete, seal_days: int, keep_events_days: int
) -> tuple[list[dg.JobDefinition], list[dg.ScheduleDefinition]]:
    """Define the jobs `backfill_stale`, `reconcile` and `retention`, each with a nightly schedule.

    Args:
        families: The families whose images, partitions and events the jobs look after.
        on_delete: What a deleted upload does to its image.
        seal_days: Images that have not changed for this many days lose their partition; 0 for none.
        keep_events_days: Age in days at which events are deleted; 0 for no retention at all.
    """

    @dg.op(
        name="backfill_stale_images",
        description=WHAT["backfill_stale"],
    )
    def backfill(
        context: dg.OpExecutionContext,
        config: BackfillConfig,
        catalog: CatalogResource,
        stores: StoresResource,
    ) -> None:
        wanted = Selection(prefix=config.prefix, rejected=config.rejected, force=config.force)
        with catalog.open(stores.source_name) as rows:
            counts = backfill_stale(families, rows, wanted)
        context.add_output_metadata(as_metadata(counts))
        context.log.info(f"Pending now: {counts}. The sensor asks for them.")

    @dg.op(
        name="reconcile_everything",
        description=WHAT["reconcile"],
    )
    def compare(
        context: dg.OpExecutionContext,
        config: ReconcileConfig,
        catalog: CatalogResource,
        stores: StoresResource,
    ) -> None:
        try:
            with opened(catalog, stores, on_delete) as (rows, source, follow):
                found = reconcile(
                    families,
                    rows,
                    context.instance,
                    source,
                    stores.open_outputs(),
                    follow=follow,
                    seal_days=seal_days,
                    allow_many=config.allow_many,
                )
        except (NotOurs, TooMany) as error:
            raise dg.Failure(str(error)) from error
        context.add_output_metadata(as_metadata(found.counts()))
        context.log.info(f"Found and repaired: {found.counts()}.")

    @dg.op(
        name="clean_event_log",
        description=WHAT["retention"],
    )
    def clean(context: dg.OpExecutionContext) -> None:
        freed = clean_event_log(
            context.instance,
            families,
            jobs=[*(family.job for family in families), *(job.name for job in jobs), AUDIT_JOB],
            older_than=datetime.now(UTC) - timedelta(days=keep_events_days),
        )
        context.add_output_metadata(as_metadata(freed.counts()))
        context.log.info(f"Deleted: {freed.counts()}.")

    @dg.job(
        name="backfill_stale",
        description=WHAT["backfill_stale"],
        tags=BOUNDED,
        executor_def=dg.in_process_executor,
    )
    def backfill_job() -> None:
        backfill()

    @dg.job(
        name="reconcile",
        description=WHAT["reconcile"],
        tags=BOUNDED,
        executor_def=dg.in_process_executor,
    )
    def reconcile_job() -> None:
        compare()

    @dg.job(
        name="retention",
        description=WHAT["retention"],
        tags=BOUNDED,
        executor_def=dg.in_process_executor,
    )
    def retention_job() -> None:
        clean()

    times = {backfill_job: "0 2 * * *", reconcile_job: "30 2 * * *"}
    if keep_events_days:
        times[retention_job] = "0 3 * * *"
    jobs = list(times)
    schedules = [
        dg.ScheduleDefinition(
            name=f"nightly_{job.name}",
            description=WHAT[job.name],
            job=job,
            cron_schedule=cron,
            default_status=dg.DefaultScheduleStatus.RUNNING,
        )
        for job, cron in times.items()
    ]
    return jobs, schedules
