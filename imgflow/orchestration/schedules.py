"""What happens by the clock: the backfill of what is stale, and the reconciliation."""

from collections.abc import Sequence

import dagster as dg

from imgflow.orchestration.families import Family
from imgflow.orchestration.maintenance import as_metadata, backfill_stale, reconcile
from imgflow.orchestration.resources import CatalogResource, StoresResource
from imgflow.orchestration.sensors import opened
from imgflow.settings import OnDelete


def maintenance(
    families: Sequence[Family], *, on_delete: OnDelete
) -> tuple[list[dg.JobDefinition], list[dg.ScheduleDefinition]]:
    """Make the jobs `backfill_stale` and `reconcile`, each with its nightly schedule.

    Args:
        families: whose images they look after.
        on_delete: what a deleted upload does to its image.
    """

    @dg.op(
        name="backfill_stale_images",
        description="Makes images pending that lack an output or have one of another recipe.",
    )
    def backfill(
        context: dg.OpExecutionContext, catalog: CatalogResource, stores: StoresResource
    ) -> None:
        with catalog.open(stores.source_name) as rows:
            counts = backfill_stale(families, rows)
        context.add_output_metadata(as_metadata(counts))
        context.log.info(f"Pending now: {counts}. The sensor asks for them.")

    @dg.op(
        name="reconcile_everything",
        description="Compares bucket, catalogue, outputs and partitions, and repairs differences.",
    )
    def compare(
        context: dg.OpExecutionContext, catalog: CatalogResource, stores: StoresResource
    ) -> None:
        with opened(catalog, stores, on_delete) as (rows, source, follow):
            found = reconcile(
                families, rows, context.instance, source, stores.open_outputs(), follow=follow
            )
        context.add_output_metadata(as_metadata(found.counts()))
        context.log.info(f"Found and repaired: {found.counts()}.")

    @dg.job(name="backfill_stale", executor_def=dg.in_process_executor)
    def backfill_job() -> None:
        backfill()

    @dg.job(name="reconcile", executor_def=dg.in_process_executor)
    def reconcile_job() -> None:
        compare()

    schedules = [
        dg.ScheduleDefinition(
            name=f"nightly_{job.name}",
            job=job,
            cron_schedule=cron,
            default_status=dg.DefaultScheduleStatus.RUNNING,
        )
        for job, cron in ((backfill_job, "0 2 * * *"), (reconcile_job, "30 2 * * *"))
    ]
    return [backfill_job, reconcile_job], schedules
