"""From pending rows to runs: what the sensor and `imgflow ingest` share."""

from __future__ import annotations

import time
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
    PARTITION_NAME_TAG,
)
from imgflow.orchestration.families import Family
from imgflow.orchestration.partitions import PARTITIONS, partition_key

# Runs of a family at the same time: one works while the next starts. More would only compete for
# the same cores, and an upload that arrives meanwhile would wait behind all of them.
MOST_RUNS = 2

# From the start of a run to its hold on its batch; imports take most of it.
HOLD_SECONDS = 60

# Marks runs that `imgflow ingest` executes in its own process.
INGEST_TAG = "imgflow/ingest"

# Removing a partition costs a statement or two.
MOST_REMOVED = 200

PARTITION_TAGS = {
    ASSET_PARTITION_RANGE_START_TAG,
    ASSET_PARTITION_RANGE_END_TAG,
    PARTITION_NAME_TAG,
}

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
    """What is to be launched, and the partitions that were added for it, in this order."""

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

    Nothing is asked for twice while a run for it is queued or going on, also when several sensors
    and commands ask at the same time. A crash after the note and before the launch delays these
    images by seconds: a batch that still has no run by then counts for nothing.
    """
    with catalog.asking():
        return _request_batches(families, catalog, instance, batch_size=batch_size)


def _request_batches(
    families: Sequence[Family],
    catalog: PostgresCatalog,
    instance: dg.DagsterInstance,
    *,
    batch_size: int,
) -> Requests:
    requests = Requests([], {})
    for family in families:
        active = active_batches(instance, catalog, [family])
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
            # Before anyone else asks: a range depends on the order in which keys were added.
            instance.add_dynamic_partitions(name, added)
            requests.new_partitions[name] = added
        for found in plan_ranges(
            images, known, blocked={partition_key(key) for key in blocked}, most=batch_size
        )[:free]:
            batch = uuid.uuid4().hex
            wanted = [images[partition].id for partition in found.wanted]
            image_ids = tuple(catalog.assign(wanted, batch, active=active))
            if image_ids:
                requests.batches.append(BatchRequest(family, found, image_ids, batch))
    return requests


def sensor_result(
    requests: Requests, *, otherwise: str, cursor: str | None = None
) -> dg.SensorResult:
    """What a sensor's tick answers: run requests, or a skip with a reason.

    The partitions stand there already; they are requested again so that the tick shows them.
    """
    if not requests.batches:
        return dg.SensorResult(skip_reason=otherwise, cursor=cursor)
    sets = {str(definition.name): definition for definition in PARTITIONS.values()}
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(job_name=request.family.job, tags=request.tags)
            for request in requests.batches
        ],
        dynamic_partitions_requests=[
            sets[name].build_add_request(keys) for name, keys in requests.new_partitions.items()
        ],
        cursor=cursor,
    )


def is_idle(instance: dg.DagsterInstance) -> bool:
    """Whether no run over partitions is queued or going on."""
    unfinished = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    return not any(run.tags.keys() & PARTITION_TAGS for run in unfinished)


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
    if not is_idle(instance):
        return
    for family in families:
        with catalog.asking():  # else another sensor may just be asking for one that came back
            leaving = catalog.leaving(family.kind, most=MOST_REMOVED)
            for key in leaving:
                instance.delete_dynamic_partition(str(family.partitions.name), partition_key(key))
            if leaving:
                catalog.left(leaving)
    if erase_rows:
        catalog.erase_left()


def active_batches(
    instance: dg.DagsterInstance, catalog: PostgresCatalog, families: Sequence[Family]
) -> list[str]:
    """Batches whose run is queued or going on.

    A run whose process died without a word looks to Dagster as if it went on for ever; it is marked
    failed here, so that its images are asked for again.
    """
    if is_idle(instance):  # one cheap question; records take two connections and a reflection
        return []
    active = []
    for family in families:
        records = instance.get_run_records(dg.RunsFilter(job_name=family.job, statuses=UNFINISHED))
        for record in records:
            batch = record.dagster_run.tags.get(BATCH_TAG)
            if batch is None:
                continue
            if _is_alive(record, catalog, batch):
                active.append(batch)
            else:
                instance.report_run_failed(
                    record.dagster_run,
                    "The process of this run ended without a word; its images are asked for again.",
                )
    return active


def _is_alive(record: dg.RunRecord, catalog: PostgresCatalog, batch: str) -> bool:
    """Whether a process works on a batch, or may still come to it."""
    if catalog.is_held(batch):
        return True
    run = record.dagster_run
    if INGEST_TAG in run.tags:  # its process holds the batch from before the run is made
        return False
    if run.status != dg.DagsterRunStatus.STARTED or record.start_time is None:
        return True  # Dagster itself watches runs that do not start
    return time.time() - record.start_time < HOLD_SECONDS
