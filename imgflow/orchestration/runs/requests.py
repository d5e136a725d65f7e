"""Decides which runs to request for queued images; sensors and `imgflow ingest` share it.

How images are divided into ranges is in `ranges`, which runs are still live in `liveness`, and what
a run then does in `execute`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import dagster as dg

from imgflow.catalog.partition_keys import partition_key
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.postgres.run_locks import Pace
from imgflow.foreign_text import visible
from imgflow.orchestration.dagster_storage.event_log import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from imgflow.orchestration.dagster_storage.queries import count_partitions
from imgflow.orchestration.families import PARTITIONS, Family
from imgflow.orchestration.runs.execute import BATCH_TAG
from imgflow.orchestration.runs.hot_set import seal_excess
from imgflow.orchestration.runs.liveness import UnfinishedRun, active_batches, unfinished_runs
from imgflow.orchestration.runs.ranges import Range, new_keys, plan_ranges

MAX_RETRIES_TAG = "dagster/max_retries"
# Shown in the UI's list of runs.
IMAGES_TAG = "imgflow/images"

# Assumed until a first run has ended. Slow, because a first batch that is too small costs little.
FIRST_PACE = Pace(images_per_second=20, bytes_per_second=20e6)

# Each run costs about a second of its worker, so it should have more work than that.
LEAST_RUN_SECONDS = 2.0

# Factors on an even share: images differ in size, so an exact share may leave a few for one more
# run. The first factor that leaves none is used, since all wait for the longest run.
SHARE_MARGINS = (1.005, 1.02, 1.05, 1.1)


@dataclass(frozen=True)
class Batching:
    """How much a run takes, and how many runs there are at a time.

    Attributes:
        images: Maximum number of images in a run.
        seconds: Target duration of a run, estimated from the pace of earlier runs.
        runs: Maximum concurrent runs of a family. While one works, the next one starts; more would
            only compete for the cores of one machine, and a new upload would wait behind all of
            them. Waiting images are queued in the catalogue, not as runs.
        hot: Maximum number of partitions of a family; beyond it, images are sealed.
        is_spread: Runs go to separate machines, so waiting images are divided among all runs that
            are free.
    """

    images: int = 5_000
    seconds: float = 60.0
    runs: int = 2
    hot: int = 100_000
    is_spread: bool = False

    def run_seconds(self, waiting: float, free: int) -> list[float]:
        """Limits for the seconds of one run, to be tried in order, the most even division first.

        Args:
            waiting: Expected seconds for all waiting images together.
            free: Number of runs that may be requested.
        """
        if not self.is_spread:
            return [self.seconds]
        shares = (waiting / free * margin for margin in SHARE_MARGINS)
        limits = (min(self.seconds, max(share, LEAST_RUN_SECONDS)) for share in shares)
        return list(dict.fromkeys(limits))


@dataclass(frozen=True)
class BatchRequest:
    """A run to be launched.

    Attributes:
        range: The partitions that the run covers.
        image_ids: Ids of the rows to process; the range may cover others.
        batch: Name of the batch in the catalogue and in the run's tags.
    """

    family: Family
    range: Range
    image_ids: tuple[int, ...]
    batch: str

    @property
    def tags(self) -> dict[str, str]:
        """Tags that make the run cover a range of partitions and show its number of images."""
        return {
            ASSET_PARTITION_RANGE_START_TAG: self.range.start,
            ASSET_PARTITION_RANGE_END_TAG: self.range.end,
            BATCH_TAG: self.batch,
            # Its images are requested again automatically; a retry would duplicate that.
            MAX_RETRIES_TAG: "0",
            IMAGES_TAG: str(len(self.image_ids)),
        }


@dataclass(frozen=True)
class Requests:
    """The runs to launch, and the partitions already added for them, in order of insertion."""

    batches: list[BatchRequest] = field(default_factory=list)
    new_partitions: dict[str, list[str]] = field(default_factory=dict)

    def add(
        self,
        family: Family,
        catalog: PostgresCatalog,
        instance: dg.DagsterInstance,
        batching: Batching,
        *,
        unfinished: Sequence[UnfinishedRun],
        most: int,
    ) -> None:
        """Add at most `most` requests of a family, and the partitions that they need."""
        active = active_batches(unfinished, family)
        waiting = catalog.waiting(family.kind, active=active, most=batching.images * most)
        if not waiting:
            return
        images = {partition_key(image.key): image for image in waiting}
        name = str(family.partitions.name)
        existing = instance.get_existing_dynamic_partitions(name, list(images))
        if added := new_keys(images, existing):
            catalog.entering([images[partition].id for partition in added])
            # Before anyone else requests runs: ranges depend on the order in which keys are added.
            instance.add_dynamic_partitions(name, added)
            self.new_partitions[name] = added
        # If all partitions are new, they are adjacent whatever precedes them. So the usual arrival
        # does not read the set, and costs the same with 100,000 partitions.
        known = instance.get_dynamic_partitions(name) if existing else []
        pace = catalog.holds.pace(family.kind) or FIRST_PACE
        seconds = {key: pace.seconds(image.announced_size) for key, image in images.items()}

        def planned(*, rejected: bool) -> list[Range]:
            blocked = (
                catalog.untouchable(family.kind, active=active, rejected=rejected) if known else []
            )
            found: list[Range] = []
            for limit in batching.run_seconds(sum(seconds.values()), most):
                found = plan_ranges(
                    images,
                    known,
                    blocked={partition_key(key) for key in blocked},
                    most=batching.images,
                    seconds=seconds,
                    most_seconds=limit,
                )
                if len(found) <= most:
                    break
            return found

        ranges = planned(rejected=True)
        if len(ranges) > most:
            # Overwritten images between rejected ones would take a run each, and everything else
            # would wait for all of them. A run that covers rejected images does not retry them; it
            # only reports again that they are rejected.
            ranges = planned(rejected=False)
        ranges = sorted(ranges, key=lambda found: -sum(seconds[key] for key in found.wanted))[:most]
        for found in ranges:
            batch = uuid.uuid4().hex
            wanted = [images[partition].id for partition in found.wanted]
            image_ids = tuple(catalog.assign(wanted, batch, active=active))
            if image_ids:
                self.batches.append(BatchRequest(family, found, image_ids, batch))
        in_use = {bound for run in unfinished for bound in run.bounds}
        in_use.update(bound for found in ranges for bound in (found.start, found.end))
        seal_excess(
            family,
            catalog,
            instance,
            partitions=count_partitions(instance, name),
            most=batching.hot,
            in_use=in_use,
        )


def request_batches(
    families: Sequence[Family],
    catalog: PostgresCatalog,
    instance: dg.DagsterInstance,
    *,
    batching: Batching,
    most: int | None = None,
) -> Requests:
    """Cover everything that waits with ranged runs, and note the requests in the catalogue.

    No image is requested twice while a run for it is queued or active, even when several sensors
    and commands make requests at the same time. A crash between the note and the launch delays
    these images by seconds: a batch that still has no run by then is ignored.

    Args:
        families: The families to request runs for, in this order.
        catalog: Knows which images wait.
        instance: Has the partitions, and knows which runs are queued or active.
        batching: How much a run takes, and how many runs of a family there are at a time.
        most: Maximum number of requests; None for as many as `batching` allows.
    """
    with catalog.holds.asking():
        requests = Requests()
        unfinished = unfinished_runs(instance, catalog, families)
        for family in families:
            free = batching.runs - len(active_batches(unfinished, family))
            if most is not None:
                free = min(free, most - len(requests.batches))
            if free > 0:
                requests.add(family, catalog, instance, batching, unfinished=unfinished, most=free)
        return requests


def sensor_result(
    requests: Requests, *, otherwise: str, cursor: str | None = None
) -> dg.SensorResult:
    """The result of a sensor's tick: run requests, or a skip with a reason.

    The partitions exist already; they are requested again so that the tick shows them.
    """
    if not requests.batches:
        return dg.SensorResult(skip_reason=visible(otherwise), cursor=cursor)
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
