"""From pending rows to runs: what the sensor and `imgflow ingest` share."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from imgflow.catalog.postgres import PostgresCatalog
from imgflow.orchestration.arrivals import Range, new_keys, plan_ranges
from imgflow.orchestration.assets import BATCH_TAG
from imgflow.orchestration.event_log import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from imgflow.orchestration.families import Family
from imgflow.orchestration.partitions import partition_key

# Runs of a family at the same time: one works while the next starts. More would only compete for
# the same cores, and an upload that arrives meanwhile would wait behind all of them.
MOST_RUNS = 2

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class BatchRequest:
    """A run to be launched.

    Attributes:
        family: whose job.
        range: which partitions.
        image_ids: rows of those that are to be processed.
        batch: its name in the catalogue and in the run's tags.
    """

    family: Family
    range: Range
    image_ids: tuple[int, ...]
    batch: str

    @property
    def tags(self) -> dict[str, str]:
        """The tags that make it a run over a range of partitions."""
        return {
            ASSET_PARTITION_RANGE_START_TAG: self.range.start,
            ASSET_PARTITION_RANGE_END_TAG: self.range.end,
            BATCH_TAG: self.batch,
        }


@dataclass(frozen=True)
class Requests:
    """What is to be launched, and the partitions to be added before, in this order."""

    batches: list[BatchRequest]
    new_partitions: dict[str, list[str]]


def request_batches(
    families: Sequence[Family],
    catalog: PostgresCatalog,
    instance: dg.DagsterInstance,
    *,
    batch_size: int,
) -> Requests:
    """Cover everything that waits with ranged runs, and note in the catalogue what was asked for.

    Nothing is asked for twice while a run for it is queued or going on. A crash after the note and
    before the launch delays these images by seconds: a batch without a run counts for nothing at
    the next call.
    """
    requests = Requests([], {})
    for family in families:
        active = active_batches(instance, [family])
        free = MOST_RUNS - len(active)
        waiting = catalog.waiting(family.kind, active=active, most=batch_size * max(free, 0))
        if not waiting:
            continue
        images = {partition_key(image.key): image for image in waiting}
        name = str(family.partitions.name)
        known = instance.get_dynamic_partitions(name)
        blocked = catalog.untouchable(family.kind, active=active)
        added = new_keys(images, known)
        if added:
            requests.new_partitions[name] = added
        for found in plan_ranges(
            images, known, blocked={partition_key(key) for key in blocked}, most=batch_size
        )[:free]:
            batch = uuid.uuid4().hex
            image_ids = tuple(images[partition].id for partition in found.wanted)
            catalog.assign(image_ids, batch)
            requests.batches.append(BatchRequest(family, found, image_ids, batch))
    return requests


def active_batches(instance: dg.DagsterInstance, families: Sequence[Family]) -> list[str]:
    """Batches whose run is queued or going on."""
    return [
        run.tags[BATCH_TAG]
        for family in families
        for run in instance.get_runs(dg.RunsFilter(job_name=family.job, statuses=UNFINISHED))
        if BATCH_TAG in run.tags
    ]
