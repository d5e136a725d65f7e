"""The sensor that sees uploads: input and output around decisions made elsewhere."""

import json
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import dagster as dg

from imgflow.catalog.postgres import PostgresCatalog
from imgflow.catalog.rows import Image
from imgflow.errors import Trouble
from imgflow.lifecycle import follow_deletions
from imgflow.orchestration.families import Family
from imgflow.orchestration.requests import (
    Requests,
    remove_partitions,
    request_batches,
    sensor_result,
)
from imgflow.orchestration.resources import CatalogResource, StoresResource
from imgflow.settings import OnDelete
from imgflow.store.objects import Page, Source
from imgflow.store.outputs import OutputStore

PAGE_OBJECTS = 1_000

Follow = Callable[[Sequence[Image]], str | None]


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
    warnings: list[str]


def list_and_announce(
    source: Source, catalog: PostgresCatalog, start: Round, *, pages: int, follow: Follow
) -> Listed:
    """List a bounded part of the source, and record in the catalogue what it says.

    Args:
        source: is listed.
        catalog: is told about new and changed uploads.
        start: where to begin.
        pages: how much to list.
        follow: is told about images whose object a page should have shown and did not; returns a
            warning where it did nothing.
    """
    resume_after = start.resume_after
    listed = 0
    new: list[int] = []
    changed: list[int] = []
    warnings: list[str] = []
    ahead = pages_ahead(source, resume_after, pages)
    with catalog.comparing() as known, closing(ahead) as listing:
        for page in listing:
            listed += len(page.objects)
            if not known.knows(resume_after, page.resume_after, page.digest):
                announcement = catalog.announce(page.objects)
                new += (image.id for image in announcement.new)
                changed += (image.id for image in announcement.changed)
                missing = catalog.vanished(
                    resume_after, page.resume_after, [upload.key for upload in page.objects]
                )
                if warning := follow(missing):
                    warnings.append(warning)
            resume_after = page.resume_after
    return Listed(Round(resume_after), listed, new, changed, warnings)


def pages_ahead(source: Source, resume_after: str | None, most: int) -> Generator[Page, None, None]:
    """List pages one after the other, the next one while the caller is busy with the last.

    Two pages are in memory at a time, however large the source is.
    """
    with ThreadPoolExecutor(1, "listing") as threads:
        page = source.list_page(resume_after, PAGE_OBJECTS)
        for _ in range(most - 1):
            if page.resume_after is None:
                break
            ahead = threads.submit(source.list_page, page.resume_after, PAGE_OBJECTS)
            yield page
            page = ahead.result()
        yield page


def following(
    catalog: PostgresCatalog,
    source: Source,
    open_outputs: Callable[[], OutputStore],
    on_delete: OnDelete,
) -> Follow:
    """Do with images that are missing what the setting says."""
    return lambda missing: follow_deletions(catalog, source, open_outputs, missing, on_delete)


def arrivals_sensor(
    families: Sequence[Family],
    jobs: Sequence[Any],
    *,
    interval_seconds: int,
    pages: int,
    batch_size: int,
    on_delete: OnDelete,
) -> dg.SensorDefinition:
    """Make the sensor that asks for runs over everything new or overwritten in the source.

    Args:
        families: whose images it looks for.
        jobs: the job of each family.
        interval_seconds: between two ticks, at least.
        pages: of 1,000 objects that one tick lists; a larger source is covered in rounds.
        batch_size: images in one run, at most.
        on_delete: what a deleted upload does to its image.
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
                source = stores.open_source()
                follow = following(rows, source, stores.open_outputs, on_delete)
                seen = list_and_announce(source, rows, start, pages=pages, follow=follow)
                requests = request_batches(families, rows, context.instance, batch_size=batch_size)
                remove_partitions(
                    families, rows, context.instance, erase_rows=on_delete == "delete"
                )
        except Trouble as trouble:
            # Not an empty bucket: nothing is concluded, and the next tick lists the same part
            # again.
            return dg.SensorResult(skip_reason=str(trouble), cursor=start.cursor())
        return _result(seen, requests)

    return arrivals


def _result(seen: Listed, requests: Requests) -> dg.SensorResult:
    said = [f"{seen.listed} objects listed, nothing new.", *seen.warnings]
    return sensor_result(requests, otherwise=" ".join(said), cursor=seen.next.cursor())
