"""Which images have a partition: all until there are too many, and none that is deleted.

Dagster stays quick up to about 100,000 partitions of an asset. Beyond that the images that changed
longest ago are sealed: they lose their partition and nothing else. One that is uploaded again or
asked for becomes pending, and what is pending gets a partition (see `requests`).
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
    """Seal images when a family has more partitions than `most`.

    A tenth more than must be, else every request for runs would have a few to seal.
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
    """Take the partitions from images that are settled, those that changed longest ago first.

    Row, outputs and events stay. What is uploaded again or asked for gets its partition back.

    Args:
        family: of images.
        catalog: knows which are settled, and keeps that they are sealed.
        instance: has the partitions.
        most: images.
        in_use: partition keys that stay, since ranges begin or end with them.
        before: only images that are unchanged since then.

    Returns:
        How many.
    """
    if has_open_backfill(instance):  # it names its partitions one by one
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
    """Delete the partitions of object keys, except those that images of other sources need.

    A set of partitions belongs to all sources in an instance. Returns how many were deleted.
    """
    needed = catalog.needed_by_others(family.kind, keys)
    leaving = [partition_key(key) for key in keys if key not in needed]
    delete_partitions(instance, str(family.partitions.name), leaving)
    return len(leaving)


def is_idle(runs: Sequence[UnfinishedRun], catalog: PostgresCatalog) -> bool:
    """Whether no run over partitions is queued, going on, or about to be launched."""
    return not runs and not catalog.has_requests()


def remove_partitions(
    families: Sequence[Family],
    catalog: PostgresCatalog,
    instance: dg.DagsterInstance,
    *,
    erase_rows: bool,
) -> None:
    """Remove the partitions of deleted images, a bounded number at a time.

    Only while no run is queued or going on: a run whose range begins or ends with a partition that
    is not there any more breaks, and so does its page in the UI.

    Args:
        families: whose partitions.
        catalog: knows which images are deleted.
        instance: has the partitions.
        erase_rows: delete the tombstones of images without a partition, too.
    """
    if not catalog.has_leaving() and not erase_rows:
        return
    with catalog.holds.asking():  # else another sensor may just be asking for one that came back
        if not is_idle(unfinished_runs(instance, catalog, families), catalog):
            return
        for family in families:
            leaving = catalog.leaving(family.kind, most=MOST_REMOVED)
            if leaving:
                take_partitions(family, catalog, instance, leaving)
                catalog.left(leaving)
        if erase_rows:
            catalog.erase_left()
