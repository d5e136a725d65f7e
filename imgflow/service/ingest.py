"""`imgflow ingest`: one pass without a daemon, which runs in this process what the sensor would.

Batching the images is in `imgflow.orchestration`, and the command in `imgflow.cli`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import dagster as dg
import sqlalchemy as sa
from dagster_postgres.utils import DagsterPostgresException

from imgflow.catalog.database.engine import outages_in_words
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.orchestration.families import Family
from imgflow.orchestration.runs.liveness import INGEST_TAG, unfinished_runs
from imgflow.orchestration.runs.requests import Batching, request_batches
from imgflow.orchestration.sensing.listing import Follow, Listed, Round, list_and_announce
from imgflow.store.folder.writers import QUIET_SECONDS
from imgflow.store.objects import Source

# Runs of the sensor may have some of the images; this is how often to check on them.
POLL_SECONDS = 0.5

# Images of a killed run may be requested again after ten seconds, which is worth waiting for.
SOON_SECONDS = 15

# The caller shows progress, and the run's events contain Dagster's own lines anyway.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class IngestReport:
    """What `imgflow ingest` did, in numbers of images, from the listing to the last event.

    Images processed meanwhile by another command or by the sensor count as unchanged, so the
    numbers of two concurrent commands add up. All images that wait because they failed count as
    `failed`, whoever tried them and whenever.

    Attributes:
        retry_seconds: Seconds until the first failed image is retried; None if none failed.
        reasons: Why images were rejected or failed, by key.
    """

    listed: int = 0
    processed: int = 0
    unchanged: int = 0
    rejected: int = 0
    failed: int = 0
    seconds: float = 0.0
    retry_seconds: float | None = None
    reasons: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, float]:
        """Return the numbers for programs; `retry_seconds` is present only if an image failed."""
        numbers = asdict(self)
        del numbers["reasons"]
        return {name: number for name, number in numbers.items() if number is not None}


def ingest(
    source: Source,
    catalog: PostgresCatalog,
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    families: Sequence[Family],
    *,
    batching: Batching,
    follow: Follow,
    progress: Callable[[str], None],
    prepare: Callable[[], None] = lambda: None,
) -> IngestReport:
    """List everything, process what is new or changed, and wait for images that other runs have.

    Args:
        source: Source to list.
        catalog: Catalogue of this source.
        instance: Dagster instance that records the runs.
        definitions: Definitions with the jobs of the families.
        families: Only their images are processed.
        batching: How many images a run takes.
        follow: Called with the keys of images whose object is gone.
        progress: Called with each line to show.
        prepare: Called once there is work, to get workers ready in the background.

    Raises:
        Trouble: The source or the database does not answer.
    """
    began = time.monotonic()
    report = IngestReport()
    seen = _list_all(source, catalog, follow)
    touched = {*seen.new, *seen.changed}
    if seen.unfinished:
        # Some files count as complete only after they have not changed for this long.
        time.sleep(QUIET_SECONDS)
        seen = _list_all(source, catalog, follow)
        touched.update(seen.new, seen.changed)
    if touched:
        prepare()
    report.listed = seen.listed
    runs: set[str] = set()
    progress(f"{seen.line()}; {len(touched)} of them new or changed.")
    for warning in seen.warnings:
        progress(warning)
    with _storage_outages_in_words(catalog.engine):
        while True:
            # One at a time: other processes leave its images alone only while we hold its lock.
            requests = request_batches(families, catalog, instance, batching=batching, most=1)
            for request in requests.batches:
                progress(f"{len(request.image_ids)} {request.family.kind} images are processed …")
                job = definitions.resolve_job_def(request.family.job)
                with catalog.holds.holding(request.batch):
                    done = job.execute_in_process(
                        run_config=QUIET,
                        instance=instance,
                        tags={**request.tags, INGEST_TAG: "true"},
                        raise_on_error=False,
                    )
                runs.add(done.run_id)
                touched.update(request.image_ids)
            if not requests.batches:
                others = unfinished_runs(instance, catalog, families)
                is_busy = any(run.batch for run in others) or catalog.holds.is_settling()
                if not is_busy and not catalog.is_due_soon(SOON_SECONDS):
                    break
                time.sleep(POLL_SECONDS)
    _count(catalog, touched, runs, report)
    report.seconds = round(time.monotonic() - began, 3)
    return report


@contextmanager
def _storage_outages_in_words(engine: sa.Engine) -> Iterator[None]:
    """Turn outages of Dagster's storage, which is in the same database, into `Trouble`."""
    with outages_in_words(engine):
        try:
            yield
        except DagsterPostgresException as error:  # Dagster has given up retrying
            raise error.__cause__ or error from error


def _list_all(source: Source, catalog: PostgresCatalog, follow: Follow) -> Listed:
    """List the complete source and announce its objects."""
    return list_and_announce(source, catalog, Round(), pages=sys.maxsize, follow=follow)


def _count(
    catalog: PostgresCatalog, touched: set[int], runs: set[str], report: IngestReport
) -> None:
    waiting = {image.id: image for image in catalog.failed()}
    for image in [*catalog.by_ids(sorted(touched - waiting.keys())), *waiting.values()]:
        if image.state == "ready":
            report.processed += image.run_id in runs
        elif image.state == "rejected":
            report.rejected += 1
            report.reasons[image.key] = image.reason or ""
        elif image.state == "pending":  # images deleted meanwhile are no failures
            report.failed += 1
            report.reasons[image.key] = image.reason or "no run has processed it yet"
    if report.failed:
        now = datetime.now(UTC)
        due = [image.not_before or now for image in waiting.values()]
        report.retry_seconds = round(max(0.0, (min(due, default=now) - now).total_seconds()), 1)
    dealt_with = report.processed + report.rejected + report.failed
    report.unchanged = max(0, report.listed - dealt_with)
