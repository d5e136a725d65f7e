"""The sensor that finds uploads by listing the source, page by page.

What it shares with other sensors and commands is here too: ticks, and what deleted uploads do.
Which runs are requested is decided in `runs.requests`, what is new in the catalogue.
"""

import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from imgflow.catalog.lifecycle import follow_deletions
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.postgres.sensing import recorded_tick
from imgflow.errors import NotOurs, Trouble
from imgflow.foreign_text import visible
from imgflow.observability import context as log_context
from imgflow.observability import traces
from imgflow.orchestration.families import Family
from imgflow.orchestration.resources import CatalogResource, StoresResource
from imgflow.orchestration.runs.hot_set import remove_partitions
from imgflow.orchestration.runs.requests import (
    Batching,
    Requests,
    request_batches,
    sensor_result,
)
from imgflow.settings.variables import OnDelete
from imgflow.store.objects import Page, Source
from imgflow.store.output_store import OutputStore

PAGE_OBJECTS = 1_000

# Dagster's daemon starts a sensor's ticks five seconds apart. A tick that finds nothing keeps
# looking until shortly before the next, so that an upload does not wait for it.
WATCH_SECONDS = 4.5

# The share of its time that a tick may spend listing again, where listing costs no money.
LOOKING_SHARE = 0.1

Follow = Callable[[Sequence[str]], str | None]
"""Called with the keys of objects that seem to be gone; returns a warning if it did nothing."""


@dataclass(frozen=True)
class Round:
    """How far the listing of the source has come; this is the sensor's complete cursor.

    Attributes:
        resume_after: The key after which the next tick lists; None at the start of a round.
    """

    resume_after: str | None = None

    @classmethod
    def from_cursor(cls, cursor: str | None) -> "Round":
        """Read a cursor; one that cannot be read starts a new round."""
        try:
            return cls(json.loads(cursor or "{}").get("resume_after"))
        except (ValueError, AttributeError):
            return cls()

    def cursor(self) -> str:
        """Write the cursor."""
        return json.dumps({"resume_after": self.resume_after})


@dataclass
class Listed:
    """What a bounded part of a listing showed.

    Attributes:
        next: Where the next part starts.
        listed: Number of objects that may be images.
        ignored: Number of entries that are not: folder markers, outputs, names that cannot be keys.
        unfinished: Number of files that are still being written; they are listed once complete.
        new: Ids of rows queued because their upload is new.
        changed: Ids of rows queued because their upload was overwritten.
        warnings: Sentences about what was left out or not done.
    """

    next: Round
    listed: int = 0
    ignored: int = 0
    unfinished: int = 0
    new: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def line(self) -> str:
        """One line about what was listed."""
        said = [f"{self.listed} objects listed"]
        if self.ignored:
            said.append(f"{self.ignored} that are no images (folder markers, outputs) ignored")
        if self.unfinished:
            said.append(f"{self.unfinished} still being written and left alone until whole")
        return ", ".join(said)


def list_and_announce(
    source: Source, catalog: PostgresCatalog, start: Round, *, pages: int, follow: Follow
) -> Listed:
    """List a bounded part of the source, and record new and changed uploads in the catalogue.

    Args:
        source: The source to list.
        catalog: Also knows which pages have not changed since they were last listed.
        start: Where to start.
        pages: Maximum number of pages of 1,000 objects.
        follow: Called once, with the keys of images whose object should have been listed but was
            not.
    """
    seen = Listed(start)
    missing: list[str] = []
    ahead = pages_ahead(source, start.resume_after, pages)
    with catalog.comparing() as known, closing(ahead) as listing:
        for page in listing:
            after = seen.next.resume_after
            seen.next = Round(page.resume_after)
            seen.listed += len(page.objects)
            seen.ignored += page.ignored
            seen.unfinished += len(page.unfinished)
            seen.warnings += page.warnings
            if known.knows(after, page.resume_after, page.digest):
                continue
            with log_context.bound(seen_by="listing"):
                announcement = catalog.announce(page.objects)
            seen.new += (image.id for image in announcement.new)
            seen.changed += (image.id for image in announcement.changed)
            there = [*(upload.key for upload in page.objects), *page.unfinished]
            vanished = catalog.vanished(after, page.resume_after, there)
            missing += (image.key for image in vanished)
    # All at once: a wrong bucket may lack a few on each page, and `follow` must see that all are.
    if missing and (warning := follow(missing)):
        seen.warnings.append(warning)
    return seen


def pages_ahead(source: Source, resume_after: str | None, most: int) -> Generator[Page, None, None]:
    """List pages in order, fetching the next while the caller works on the current one.

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
    """Make the function that does what the setting says with images whose object is gone."""
    return lambda missing: follow_deletions(catalog, source, open_outputs, missing, on_delete)


@contextmanager
def opened(
    catalog: CatalogResource, stores: StoresResource, on_delete: OnDelete
) -> Iterator[tuple[PostgresCatalog, Source, Follow]]:
    """Open the catalogue and its source; also gives what deleted uploads do to their images."""
    with catalog.open(stores.source_name) as rows:
        source = stores.open_source()
        yield rows, source, following(rows, source, stores.open_outputs, on_delete)


@contextmanager
def ticking(
    catalog: CatalogResource,
    stores: StoresResource,
    on_delete: OnDelete,
    *,
    sensor: str,
    interval_seconds: float,
) -> Iterator[tuple[PostgresCatalog, Source, Follow]]:
    """The same for a sensor's tick, which is recorded as successful if nothing is raised."""
    with (
        catalog.open(stores.source_name) as rows,
        recorded_tick(rows.engine, rows.source, sensor, interval_seconds),
    ):
        source = stores.open_source()
        yield rows, source, following(rows, source, stores.open_outputs, on_delete)


class Watch:
    """The time in which a tick that finds nothing keeps listing."""

    def __init__(self, interval_seconds: float) -> None:
        """Start the time of a tick.

        Args:
            interval_seconds: Minimum seconds between two listings; if ticks are as far apart, each
                lists once. Listing a folder costs this machine's time instead of money, so there
                the pauses are such that listing takes a tenth of it.
        """
        self._interval = interval_seconds
        self._until = time.monotonic() + WATCH_SECONDS
        self._looked = time.monotonic()

    def goes_on(self, source: Source) -> bool:
        """Wait until the next listing; return False at once if there is no time for one."""
        now = time.monotonic()
        pause = self._interval
        if source.location.scheme == "file" and pause < WATCH_SECONDS:
            pause = (now - self._looked) / LOOKING_SHARE
        self._looked = now + pause
        if self._looked > self._until:
            return False
        time.sleep(pause)
        return True


def arrivals_sensor(
    families: Sequence[Family],
    jobs: Sequence[Any],
    *,
    interval_seconds: float,
    pages: int,
    batching: Batching,
    on_delete: OnDelete,
) -> dg.SensorDefinition:
    """Define the sensor that requests runs over everything new or overwritten in the source.

    Args:
        families: The families to request runs for.
        jobs: The job of each family.
        interval_seconds: Minimum seconds between two ticks, and between two listings in a tick.
        pages: Maximum pages of 1,000 objects in one tick; a larger source is covered in rounds.
        batching: How much a run takes, and how many runs there are at a time.
        on_delete: What a deleted upload does to its image.
    """

    @dg.sensor(
        name="arrivals",
        jobs=list(jobs),
        minimum_interval_seconds=max(1, math.ceil(interval_seconds)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for runs over the uploads that are new or overwritten.",
    )
    def arrivals(
        context: dg.SensorEvaluationContext, catalog: CatalogResource, stores: StoresResource
    ) -> dg.SensorResult:
        start = Round.from_cursor(context.cursor)
        watch = Watch(interval_seconds)
        try:
            with ticking(
                catalog,
                stores,
                on_delete,
                sensor="arrivals",
                interval_seconds=interval_seconds,
            ) as (rows, source, follow):
                while True:
                    began = time.time()
                    seen = list_and_announce(source, rows, start, pages=pages, follow=follow)
                    # Before requesting: new runs need their partitions, but do not show up yet.
                    remove_partitions(
                        families, rows, context.instance, erase_rows=on_delete == "delete"
                    )
                    requests = request_batches(families, rows, context.instance, batching=batching)
                    is_whole = start == seen.next == Round()
                    if requests.batches or not is_whole or not watch.goes_on(source):
                        break
                if seen.new or seen.changed or requests.batches:
                    traces.ticked(
                        "arrivals",
                        began,
                        {
                            "imgflow.listed": seen.listed,
                            "imgflow.pending": len(seen.new) + len(seen.changed),
                            "imgflow.runs": len(requests.batches),
                        },
                    )
                for warning in seen.warnings:
                    context.log.warning(visible(warning))
        except (Trouble, NotOurs) as trouble:
            # Not the same as an empty bucket: conclude nothing, and list the same part next tick.
            return dg.SensorResult(skip_reason=str(trouble), cursor=start.cursor())
        return _result(seen, requests)

    return arrivals


def _result(seen: Listed, requests: Requests) -> dg.SensorResult:
    said = [f"{seen.line()}; nothing new.", *seen.warnings]
    return sensor_result(requests, otherwise=" ".join(said), cursor=seen.next.cursor())
