"""The assets of both families: one function each, which makes all outputs from one read.

What an operator selects in the UI, what the sensor asks for and what `imgflow ingest` runs goes
through `process_partitions`, so all of them give the same result.
"""

from collections.abc import Iterator, Sequence

import dagster as dg
from pydantic import Field

from imgflow.catalog.postgres import PostgresCatalog
from imgflow.catalog.rows import Image
from imgflow.depth.recipe import DepthRecipe
from imgflow.images.decoding import Limits
from imgflow.images.recipe import PhotoRecipe
from imgflow.orchestration import batch
from imgflow.orchestration.event_log import report_images
from imgflow.orchestration.events import finished_events, selected_names, unchanged_events
from imgflow.orchestration.families import METADATA_VERSION, Family
from imgflow.orchestration.partitions import object_key
from imgflow.orchestration.pool import WorkerPool
from imgflow.orchestration.resources import CatalogResource, StoresResource, WorkersResource
from imgflow.orchestration.worker import Task, WorkerConfig
from imgflow.store.looking import look_at
from imgflow.store.objects import Source

# Names the batch in the tags of a run that the sensor or `imgflow ingest` asked for. Such a run
# trusts the listing that led to it; any other was started by a person and looks at the objects
# first.
BATCH_TAG = "imgflow/batch"

OWNERS = ["team:imgflow"]
LISTED_IN_FAILURE = 50

DESCRIPTIONS = {
    "photo/source": "Photographs as they were uploaded.",
    "photo/grayscale": "BT.601 luma, upright, in the depth of the upload.",
    "photo/thumbnail": "Fits the thumbnail box, never enlarged.",
    "photo/proof": "Small and watermarked, to be shown to others.",
    "photo/metadata": "Rows of the table `images`.",
    "depth/source": "Depth images (CSV) as they were uploaded.",
    "depth/resized": "float32 array of the configured width, in chunks in the database.",
    "depth/preview": "Colour-mapped picture of the whole depth image.",
    "depth/metadata": "Rows of the table `images`.",
}


class ProcessConfig(dg.Config):
    """What an operator may set in the launchpad."""

    force: bool = Field(
        default=False, description="Make the selected outputs again even where nothing changed."
    )


def store_kind(url: str) -> str:
    """The kind that the UI shows for what lies in a store."""
    return "s3" if url.startswith("s3:") else "file"


def source_spec(family: Family, source_url: str) -> dg.AssetSpec:
    """The external asset of a family's uploads."""
    return dg.AssetSpec(
        family.source,
        description=DESCRIPTIONS[family.source.to_user_string()],
        group_name=family.kind,
        partitions_def=family.partitions,
        kinds={store_kind(source_url), *(("csv",) if family.kind == "depth" else ())},
        owners=OWNERS,
    )


def output_specs(family: Family, output_url: str) -> list[dg.AssetSpec]:
    """The assets that a family's function makes."""
    specs = [
        dg.AssetSpec(
            family.output(name),
            deps=[family.source],
            description=DESCRIPTIONS[family.output(name).to_user_string()],
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
            description=DESCRIPTIONS[family.metadata.to_user_string()],
            group_name=family.kind,
            code_version=METADATA_VERSION,
            skippable=True,
            kinds={"postgres", "table"},
            owners=OWNERS,
        )
    )
    return specs


def family_assets(
    family: Family, photo_recipe: PhotoRecipe, depth_recipe: DepthRecipe, output_url: str
) -> dg.AssetsDefinition:
    """Make the function of a family.

    Args:
        family: which one.
        photo_recipe: with which its outputs are made, if these are photographs.
        depth_recipe: with which its outputs are made, if these are depth images.
        output_url: where they go.
    """

    @dg.multi_asset(
        name=f"{family.kind}_outputs",
        specs=output_specs(family, output_url),
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
    ) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
        with catalog.open(stores.source_name) as rows:
            worker = WorkerConfig(
                stores=stores.config,
                database_url=catalog.url(),
                source=stores.source_name,
                photo_recipe=photo_recipe,
                photo_limits=Limits(max_bytes=workers.max_bytes, max_pixels=workers.max_pixels),
                depth_recipe=depth_recipe,
                decode_seconds=workers.decode_seconds,
                depth_seconds=workers.depth_seconds,
            )
            with rows.holding(context.run.tags.get(BATCH_TAG, context.run.run_id)):
                summary = process_partitions(
                    context,
                    family,
                    catalog=rows,
                    source=stores.open_source(),
                    worker=worker,
                    workers=workers.count,
                    force=config.force,
                )
        conclude(context, summary)
        # Results are reported image by image, since one returned here would stand for the whole
        # range.
        yield from ()

    return process


def process_partitions(
    context: dg.AssetExecutionContext,
    family: Family,
    *,
    catalog: PostgresCatalog,
    source: Source,
    worker: WorkerConfig,
    workers: int,
    force: bool,
) -> batch.Summary:
    """Process the partitions of a run."""
    keys = [object_key(partition) for partition in context.partition_keys]
    is_asked_by_person = BATCH_TAG not in context.run.tags
    selected = selected_names(context.selected_asset_keys)
    wanted = batch.Family(
        enabled=family.outputs,
        wanted=frozenset(selected & set(family.outputs)),
        force=force,
        retry_rejected=is_asked_by_person,
    )
    summary = batch.Summary()
    if is_asked_by_person:
        summary.troubled.update(look_again(keys, source, catalog))
    images = [
        image for image in catalog.by_keys(keys).values() if image.key not in summary.troubled
    ]
    plan = batch.plan(images, wanted, context.run.run_id)
    summary.unchanged = len(plan.unchanged)
    summary.rejected.update({image.key: image.reason or "" for image in plan.still_rejected})
    report_images(context, list(unchanged_events(family, selected, plan.unchanged)))
    context.log.info(
        f"{len(keys)} {family.kind} images: {len(plan.tasks)} to process, "
        f"{len(plan.unchanged)} unchanged, {len(plan.still_rejected)} still rejected."
    )
    if not plan.tasks:
        return summary
    tasks = plan.tasks if force else batch.with_twins(plan.tasks, catalog, family.kind)

    def report(finished: list[batch.Finished]) -> None:
        report_images(context, list(finished_events(family, selected, finished)))

    seconds = worker.decode_seconds if family.kind == "photo" else worker.depth_seconds
    with WorkerPool(worker, min(workers, len(plan.tasks))) as pool:

        def run(tasks: Sequence[Task], images: Sequence[Image]) -> list[str]:
            """Run tasks, and return the keys of those whose upload is not the announced one."""
            outcomes = pool.outcomes(tasks, family.work, seconds)
            return batch.run_tasks(images, outcomes, catalog, report, summary)

        if outdated := run(tasks, images):
            # Overwritten since it was listed: the newer upload is processed in this run too.
            summary.troubled.update(look_again(outdated, source, catalog))
            found = catalog.by_keys([key for key in outdated if key not in summary.troubled])
            images = list(found.values())
            for key in run(batch.plan(images, wanted, context.run.run_id).tasks, images):
                summary.troubled[key] = f"{key!r} is being overwritten all the time"
    return summary


def look_again(keys: Sequence[str], source: Source, catalog: PostgresCatalog) -> dict[str, str]:
    """Announce the present uploads of these keys, and return the keys without one that is known.

    Returns:
        Key to reason: it has no object, or could not be asked for.
    """
    found, unknown = look_at(source, keys)
    catalog.announce([upload for upload in found.values() if upload is not None])
    gone = [key for key, upload in found.items() if upload is None]
    catalog.forget_uploads(gone)
    return unknown | {
        key: f"there is no object {key!r} in {source.location.url}; it was deleted, or its "
        "partition was added by hand"
        for key in gone
    }


def conclude(context: dg.AssetExecutionContext, summary: batch.Summary) -> None:
    """Say what became of the batch, and fail the run when images have no outputs.

    Raises:
        Failure: some images were rejected or could not be processed. Their partitions turn red,
        those of the others stay as they were reported. Dagster retries nothing: a rejected image
        stays so until it changes, and the sensor asks again for the others.
    """
    done = f"{summary.processed} processed, {summary.unchanged} unchanged"
    if not summary.rejected and not summary.troubled:
        context.log.info(f"{done}.")
        return
    lines = [f"{done}, {len(summary.rejected)} rejected, {len(summary.troubled)} in trouble."]
    if summary.rejected:
        lines.append("Rejected until they change, or until someone materialises them again:")
        lines += _listed(summary.rejected)
    if summary.troubled:
        lines.append(
            "Kept from being processed by trouble outside; the sensor asks again for them:"
        )
        lines += _listed(summary.troubled)
    raise dg.Failure(
        description="\n".join(lines),
        metadata={
            "processed": summary.processed,
            "unchanged": summary.unchanged,
            "rejected": len(summary.rejected),
            "in trouble": len(summary.troubled),
        },
        allow_retries=False,
    )


def _listed(reasons: dict[str, str]) -> list[str]:
    shown = [f"  {key}: {reason}" for key, reason in list(reasons.items())[:LISTED_IN_FAILURE]]
    if len(reasons) > len(shown):
        shown.append(f"  … and {len(reasons) - len(shown)} more: `imgflow status`")
    return shown
