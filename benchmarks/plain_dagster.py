"""A Dagster project as people first write it: an asset per picture, a sensor that requests runs.

`benchmarks.peers` compares imgflow with it; the folders come from the environment.
"""

import os
from pathlib import Path

import dagster as dg
from PIL import Image

SOURCE, OUT = Path(os.environ["PEER_SOURCE"]), Path(os.environ["PEER_OUT"])

files = dg.DynamicPartitionsDefinition(name="files")


@dg.multi_asset(
    specs=[dg.AssetSpec("grayscale"), dg.AssetSpec("thumbnail")],
    partitions_def=files,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def pictures(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]
    """Both pictures of each file of a run."""
    for key in context.partition_keys:
        with Image.open(SOURCE / key) as image:
            image.convert("L").save(OUT / f"gray-{key}", quality=85)
            image.thumbnail((256, 256))
            image.save(OUT / f"thumb-{key}", quality=85)
    yield dg.MaterializeResult("grayscale")
    yield dg.MaterializeResult("thumbnail")


job = dg.define_asset_job("job", selection=dg.AssetSelection.all())


@dg.sensor(job=job, default_status=dg.DefaultSensorStatus.RUNNING)
def arrivals(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """A run for each file that has no partition yet."""
    known = set(context.instance.get_dynamic_partitions("files"))
    new = sorted({file.name for file in SOURCE.iterdir()} - known)
    return dg.SensorResult(
        run_requests=[dg.RunRequest(partition_key=key) for key in new],
        dynamic_partitions_requests=[files.build_add_request(new)],
    )


defs = dg.Definitions(assets=[pictures], jobs=[job], sensors=[arrivals])
