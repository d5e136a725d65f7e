"""The assets of both families, and the job of each: one function makes all outputs from one read.

Runs from the UI, from sensors and from `imgflow ingest` all go through `process_partitions` (in
`runs.execute`), so they give the same results. Descriptions and links are in `asset_pages`.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from imgflow.catalog.partition_keys import object_key
from imgflow.depth.depth_recipe import DepthRecipe
from imgflow.images.outputs import PHOTO_OUTPUTS, find_output
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow.observability import context as log_context
from imgflow.observability import traces
from imgflow.orchestration.assets.asset_pages import description_of, links_of, table_metadata
from imgflow.orchestration.checks.asset_checks import Sample, boxes_of, examine_sample
from imgflow.orchestration.checks.examine import Examination, checks_of
from imgflow.orchestration.families import METADATA_VERSION, Family
from imgflow.orchestration.resources import CatalogResource, StoresResource, WorkersResource
from imgflow.orchestration.runs.execute import batch_of, conclude, process_partitions
from imgflow.work.counting import count_run
from imgflow.work.pool import prepare_workers
from imgflow.work.tasks import WorkerConfig

OWNERS = ["team:imgflow"]


class ProcessConfig(dg.Config):
    """What an operator may set in the launchpad."""

    force: bool = Field(
        default=False, description="Make the selected outputs again even where nothing changed."
    )


def store_kind(url: str) -> str:
    """The kind tag that the UI shows for assets in a store: `s3` or `file`."""
    return "s3" if url.startswith("s3:") else "file"


def source_spec(family: Family, source_url: str) -> dg.AssetSpec:
    """The external asset of a family's uploads."""
    return dg.AssetSpec(
        family.source,
        description=description_of(family, "source"),
        metadata=links_of(family.links, family.kind),
        group_name=family.kind,
        partitions_def=family.partitions,
        kinds={store_kind(source_url), *(("csv",) if family.kind == "depth" else ())},
        owners=OWNERS,
    )


def freshness(hours: int) -> dg.FreshnessPolicy | None:
    """The policy for the longest time without a new or changed row; None for 0 hours."""
    if not hours:
        return None
    return dg.FreshnessPolicy.time_window(
        fail_window=timedelta(hours=hours), warn_window=timedelta(hours=hours) / 2
    )


def output_specs(family: Family, output_url: str, freshness_hours: int = 0) -> list[dg.AssetSpec]:
    """Specs of the assets that a family's function makes."""
    specs = [
        dg.AssetSpec(
            family.output(name),
            deps=[family.source],
            description=description_of(family, name, _installed(name)),
            metadata=links_of(family.links, family.kind),
            group_name=family.kind,
            code_version=fingerprint,
            skippable=True,
            kinds={"numpy", "postgres"}
            if name == "resized"
            else {"pillow", store_kind(output_url)},
            owners=OWNERS,
        )
        for name, fingerprint in family.outputs.items()
    ]
    specs.append(
        dg.AssetSpec(
            family.metadata,
            deps=[family.source, *(family.output(name) for name in family.outputs)],
            description=description_of(family, "metadata"),
            metadata={**links_of(family.links, family.kind), **table_metadata()},
            group_name=family.kind,
            code_version=METADATA_VERSION,
            skippable=True,
            kinds={"postgres", "table"},
            owners=OWNERS,
            freshness_policy=freshness(freshness_hours),
        )
    )
    return specs


def _installed(name: str) -> str:
    """The description of an output from another package; empty for imgflow's own."""
    is_own = name in PHOTO_OUTPUTS or name in ("resized", "preview")
    return "" if is_own else find_output(name).description


def family_assets(
    family: Family,
    photo_recipe: PhotoRecipe,
    depth_recipe: DepthRecipe,
    output_url: str,
    *,
    freshness_hours: int = 0,
) -> dg.AssetsDefinition:
    """Define the assets of a family.

    Args:
        family: Gives kind, outputs and partitions.
        photo_recipe: Used if the family is photographs.
        depth_recipe: Used if the family is depth images.
        output_url: Where outputs go; only shown here, as the assets' kind.
        freshness_hours: Longest time that the table may go without a new or changed row; 0 sets no
            limit.
    """

    @dg.multi_asset(
        name=f"{family.kind}_outputs",
        specs=output_specs(family, output_url, freshness_hours),
        partitions_def=family.partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
    )
    def process(
        context: dg.AssetExecutionContext,
        config: ProcessConfig,
        catalog: CatalogResource,
        stores: StoresResource,
        workers: WorkersResource,
    ) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]  # none is yielded
        prepare_workers(stores.config, [family.kind])
        with catalog.open(stores.source_name) as rows:
            worker = WorkerConfig(
                stores=stores.config,
                database_url=catalog.url(),
                source=stores.source_name,
                photo_recipe=photo_recipe,
                photo_limits=workers.photo_limits,
                depth_recipe=depth_recipe,
                decode_seconds=workers.decode_seconds,
                depth_seconds=workers.depth_seconds,
                depth_limits=workers.depth_limits,
            )
            told = {"imgflow.kind": family.kind, "imgflow.partitions": len(context.partition_keys)}
            with (
                log_context.bound(run_id=context.run.run_id),
                traces.run(context.run.run_id, told) as result,
                rows.holds.holding(batch_of(context.run)),
            ):
                sample = Sample(context.run.run_id)
                summary = process_partitions(
                    context,
                    family,
                    catalog=rows,
                    source=stores.open_source(),
                    open_outputs=stores.open_outputs,
                    worker=worker,
                    workers=workers.count,
                    force=config.force,
                    finished=sample.add,
                )
                if context.run.asset_check_selection:
                    # Dagster planned checks in this run, but skips their step, since this function
                    # yields no result.
                    sample.add(map(object_key, context.partition_keys))
                result["imgflow.processed"] = summary.processed
                result["imgflow.unchanged"] = summary.unchanged
                result["imgflow.rejected"] = len(summary.rejected)
                result["imgflow.in_trouble"] = len(summary.troubled)
            boxes = boxes_of(family, photo_recipe)
            checks = frozenset(checks_of(family, boxes))
            examination = Examination(family, checks, rows, stores.open_outputs, boxes)
            examine_sample(context, examination, sample.keys)
            count_run(rows, family.kind, summary)
        conclude(context, summary)
        # Results are reported image by image; one yielded here would stand for the whole range.
        yield from ()

    return process


def family_job(family: Family, assets: dg.AssetsDefinition) -> Any:
    """Define the job that sensors and `imgflow ingest` run, with all assets of a family.

    It returns `Any` because the class of such a job is private to Dagster.
    """
    return dg.define_asset_job(
        family.job,
        # Without the assets' checks, which would add a step to each run. A run examines a sample
        # of what it made itself.
        selection=dg.AssetSelection.assets(*assets.keys).without_checks(),
        description=f"All outputs of {family.kind} images, for a range of partitions.",
        executor_def=dg.in_process_executor,
        tags=family.run_tags,
    )
