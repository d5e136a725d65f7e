"""Which images have a partition: all, until there are too many; deleted images never do.

Dagster stays quick up to about 100,000 partitions of an asset. Beyond that, the images that changed
longest ago are sealed: they lose their partition and nothing else. If one is uploaded again or
requested, it is queued, and queued images get a partition (in `requests`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import dagster as dg

from imgflow.catalog.partition_keys import partition_key
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.orchestration.dagster_storage.event_log import has_open_backfill
from imgflow.orchestration.dagster_storage.queries import delete_partitions
from imgflow.orchestration.families import Family
from imgflow.orchestration.runs.liveness import UnfinishedRun, unfinished_runs

MOST_REMOVED = 5_000


def seal_excess(
    family: Family,
    catalog: PostgresCatalog,
    instance: dg.DagsterInstance,
    *,
    partitions: int,
    most: int,
    in_use: Collection[str],
) -> None:
    """Seal images if a family has more partitions than `most`.

    It seals a tenth of `most` beyond the excess; otherwise every request would have a few to seal.
    """
    if partitions > most:
        excess = partitions - most + most // 10
        seal(family, catalog, instance, most=excess, in_use=in_use)


def seal(
    family: Family,
    catalog: PostgresCatalog,
    instance: dg.DagsterInstance,
    *,
    most: int,
    in_use: Collection[str] = (),
    before: datetime | None = None,
) -> int:
    """Remove the partitions of settled images, starting with those that changed longest ago.

    Row, outputs and events stay. An image that is uploaded again or requested gets its partition
    back.

    Args:
        family: The family whose images to seal.
        catalog: Knows which images are settled, and records that they are sealed.
        instance: The instance to delete partitions from.
        most: Maximum number of images.
        in_use: Partition keys to keep, because ranges start or end with them.
        before: Seal only images that have not changed since then.

    Returns:
        The number of sealed images.
    """
    if has_open_backfill(instance):  # it lists its partitions one by one
        return 0
    keys = [
        key
        for key in catalog.sealable(family.kind, most=most, before=before)
        if partition_key(key) not in in_use
    ]
    if keys:
        catalog.seal(keys)
        take_partitions(family, catalog, instance, keys)
    return len(keys)


def take_partitions(
    family: Family, catalog: PostgresCatalog, instance: dg.DagsterInstance, keys: Sequence[str]
) -> int:
    """Delete the partitions of object keys, except those that other sources still need.

    All sources in an instance share a partition set. Returns the number of deleted partitions.
    """
    needed = catalog.needed_by_others(family.kind, keys)
    leaving = [partition_key(key) for key in keys if key not in needed]
    delete_partitions(instance, str(family.partitions.name), leaving)
    return len(leaving)


def is_idle(runs: Sequence[UnfinishedRun], catalog: PostgresCatalog) -> bool:
    """Whether no run over partitions is queued, active, or about to be launched."""
    return not runs and not catalog.has_requests()


def remove_partitions(
    families: Sequence[Family],
    catalog: PostgresCatalog,
    instance: dg.DagsterInstance,
    *,
    erase_rows: bool,
) -> None:
    """Remove the partitions of deleted images, a bounded number at a time.

    It does so only while no run is queued or active: a run whose range starts or ends with a
    missing partition breaks, and so does its page in the UI.

    Args:
        families: The families whose partitions to remove.
        catalog: Knows which images are deleted.
        instance: The instance to delete partitions from.
        erase_rows: Also delete the rows that remain of deleted images without a partition.
    """
    if not catalog.has_leaving() and not erase_rows:
        return
    with catalog.holds.asking():  # another sensor may be requesting an image that came back
        if not is_idle(unfinished_runs(instance, catalog, families), catalog):
            return
        for family in families:
            leaving = catalog.leaving(family.kind, most=MOST_REMOVED)
            if leaving:
                take_partitions(family, catalog, instance, leaving)
                catalog.left(leaving)
        if erase_rows:
            catalog.erase_left()
