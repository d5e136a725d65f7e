"""Jobs: one for each family, with all of its assets."""

from __future__ import annotations

from typing import Any

import dagster as dg

from imgflow.orchestration.families import Family


def family_job(family: Family, assets: dg.AssetsDefinition) -> Any:
    """Make the job that the sensor and `imgflow ingest` run; the class of such a job is private."""
    return dg.define_asset_job(
        family.job,
        # The checks of the assets are no part of it: they would plan and start a step more in
        # each run. A run judges a sample of what it has made by itself.
        selection=dg.AssetSelection.assets(*assets.keys).without_checks(),
        description=f"All outputs of {family.kind} images, for a range of partitions.",
        executor_def=dg.in_process_executor,
        tags=family.run_tags,
    )
