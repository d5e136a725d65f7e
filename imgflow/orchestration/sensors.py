"""The sensor that sees uploads: input and output around decisions made elsewhere."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from imgflow.catalog.postgres import PostgresCatalog
from imgflow.errors import Trouble
from imgflow.orchestration.families import Family
from imgflow.orchestration.partitions import PARTITIONS
from imgflow.orchestration.requests import Requests, request_batches
from imgflow.orchestration.resources import CatalogResource, StoresResource
from imgflow.store.objects import Source

PAGE_OBJECTS = 1_000


@dataclass(frozen=True)
class Round:
    """How far the listing of the source has come; the whole of the sensor's cursor.

    Attributes:
        resume_after: the key after which the next tick lists; None at the beginning of a round.
    """

    resume_after: str | None = None

    @classmethod
    def from_cursor(cls, cursor: str | None) -> "Round":
        """Read a cursor; one that is not understood begins a new round."""
        try:
            return cls(json.loads(cursor or "{}").get("resume_after"))
        except (ValueError, AttributeError):
            return cls()

    def cursor(self) -> str:
        """Write the cursor."""
        return json.dumps({"resume_after": self.resume_after})


@dataclass(frozen=True)
class Listed:
    """What one tick saw: where the next begins, and the rows that became pending."""

    next: Round
    listed: int
    new: list[int]
    changed: list[int]


def list_and_announce(
    source: Source, catalog: PostgresCatalog, start: Round, *, pages: int
) -> Listed:
    """List a bounded part of the source, and record in the catalogue what is new or changed."""
    resume_after = start.resume_after
    listed = 0
    new: list[int] = []
    changed: list[int] = []
    for _ in range(pages):
        page = source.list_page(resume_after, PAGE_OBJECTS)
        announcement = catalog.announce(page.objects)
        listed += len(page.objects)
        new += (image.id for image in announcement.new)
        changed += (image.id for image in announcement.changed)
        resume_after = page.resume_after
        if resume_after is None:
            break
    return Listed(Round(resume_after), listed, new, changed)


def arrivals_sensor(
    families: Sequence[Family],
    jobs: Sequence[Any],
    *,
    interval_seconds: int,
    pages: int,
    batch_size: int,
) -> dg.SensorDefinition:
    """Make the sensor that asks for runs over everything new or overwritten in the source.

    Args:
        families: whose images it looks for.
        jobs: the job of each family.
        interval_seconds: between two ticks, at least.
        pages: of 1,000 objects that one tick lists; a larger source is covered in rounds.
        batch_size: images in one run, at most.
    """

    @dg.sensor(
        name="arrivals",
        jobs=list(jobs),
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for runs over the uploads that are new or overwritten.",
    )
    def arrivals(
        context: dg.SensorEvaluationContext, catalog: CatalogResource, stores: StoresResource
    ) -> dg.SensorResult:
        start = Round.from_cursor(context.cursor)
        try:
            with catalog.open(stores.source_name) as rows:
                seen = list_and_announce(stores.open_source(), rows, start, pages=pages)
                requests = request_batches(families, rows, context.instance, batch_size=batch_size)
        except Trouble as trouble:
            # Not an empty bucket: nothing is concluded, and the next tick lists the same part
            # again.
            return dg.SensorResult(skip_reason=str(trouble), cursor=start.cursor())
        return _result(seen, requests)

    return arrivals


def _result(seen: Listed, requests: Requests) -> dg.SensorResult:
    cursor = seen.next.cursor()
    if not requests.batches:
        return dg.SensorResult(
            skip_reason=f"{seen.listed} objects listed, nothing new.", cursor=cursor
        )
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
