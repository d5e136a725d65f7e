"""The assets of both families: one function each, which makes all outputs from one read.

What an operator selects in the UI, what the sensor asks for and what `imgflow ingest` runs goes
through `process_partitions`, so all of them give the same result.
"""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from imgflow.depth.recipe import DepthRecipe
from imgflow.images.outputs import find_output
from imgflow.images.recipe import PhotoRecipe
from imgflow.observability import context as log_context
from imgflow.observability import traces
from imgflow.orchestration.counting import count_run
from imgflow.orchestration.families import METADATA_VERSION, Family
from imgflow.orchestration.pool import prepare_workers
from imgflow.orchestration.processing import batch_of, conclude, process_partitions
from imgflow.orchestration.resources import CatalogResource, StoresResource, WorkersResource
from imgflow.orchestration.worker import WorkerConfig

OWNERS = ["team:imgflow"]

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
            description=DESCRIPTIONS.get(family.output(name).to_user_string())
            or find_output(name).description,
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
        prepare_workers(stores.config)
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
            )
            told = {"imgflow.kind": family.kind, "imgflow.partitions": len(context.partition_keys)}
            with (
                log_context.bound(run_id=context.run.run_id),
                traces.run(context.run.run_id, told) as result,
                rows.holds.holding(batch_of(context.run)),
            ):
                summary = process_partitions(
                    context,
                    family,
                    catalog=rows,
                    source=stores.open_source(),
                    open_outputs=stores.open_outputs,
                    worker=worker,
                    workers=workers.count,
                    force=config.force,
                )
                result["imgflow.processed"] = summary.processed
                result["imgflow.unchanged"] = summary.unchanged
                result["imgflow.rejected"] = len(summary.rejected)
                result["imgflow.in_trouble"] = len(summary.troubled)
            count_run(rows, family.kind, summary)
        conclude(context, summary)
        # Results are reported image by image, since one returned here would stand for the whole
        # range.
        yield from ()

    return process
