"""How a run counts and logs its images: counters of the source, log lines and spans.

A run sends one statement of counts per flush and one at its end. Counts follow rows and events, so
every image counted as processed is; a process that dies in between has counted too few, never too
many. The counters themselves are in `catalog.postgres.counters`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

from imgflow.catalog.postgres import counters
from imgflow.catalog.postgres.counters import (
    ARRIVAL_BOUNDS,
    ARRIVAL_TO_READY,
    Counters,
    Series,
    series,
)
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Kind
from imgflow.observability import upload_events
from imgflow.work.tasks import Finished, Summary


def count_finished(catalog: PostgresCatalog, finished: Sequence[Finished]) -> None:
    """Count images whose result was just recorded."""
    now = datetime.now(UTC)
    counts: defaultdict[Series, float] = defaultdict(float)
    for done in finished:
        for one, value in _counts(done, now):
            counts[one] += value
    Counters(catalog.engine, catalog.source).add(counts)


def count_run(catalog: PostgresCatalog, kind: Kind, summary: Summary) -> None:
    """At the end of a run, count the images for which no result was recorded.

    Images that were already rejected are not counted again: the run learned nothing about them.
    """
    Counters(catalog.engine, catalog.source).add(
        {
            series(counters.OUTCOMES, kind=kind, outcome="noop"): summary.unchanged,
            series(counters.OUTCOMES, kind=kind, outcome="trouble"): len(summary.troubled),
        }
    )


def _counts(done: Finished, now: datetime) -> list[tuple[Series, float]]:
    verdict, kind = done.outcome.verdict, done.image.kind
    if verdict is None:
        return []  # in trouble; `count_run` counts these
    if verdict.state == "rejected":
        return [(series(counters.OUTCOMES, kind=kind, outcome="rejected"), 1)]
    counts = [
        (series(counters.OUTCOMES, kind=kind, outcome="processed"), 1),
        (series(counters.SOURCE_BYTES, kind=kind), done.outcome.bytes_read),
        (
            series(counters.OUTPUT_BYTES, kind=kind),
            sum(verdict.outputs[name]["size"] for name in done.outcome.made),
        ),
    ]
    if "process" not in done.outcome.milliseconds:
        counts.append((series(counters.COPIED, kind=kind), 1))
    if done.image.processed != verdict.upload.identity:
        # New uploads only: for other images, `updated_at` is when their last result was recorded.
        # The clocks of the database and of this machine may differ a little.
        seconds = max(0.0, (now - done.image.updated_at).total_seconds())
        counts += [
            (counters.bucket_of(ARRIVAL_TO_READY, seconds, ARRIVAL_BOUNDS, kind=kind), 1),
            (series(f"{ARRIVAL_TO_READY}_sum", kind=kind), seconds),
        ]
    return counts


# One log line and one span for each image that a run has finished. They do not go through
# `context.log`, which would store each as an event in Dagster's database for ever.


def tell_finished(finished: Iterable[Finished], recorded: Collection[int]) -> None:
    """Log and trace what became of images.

    Args:
        finished: Images that the workers are done with.
        recorded: Ids of the rows that were updated; other rows belong to a newer upload or run.
    """
    if not upload_events.is_heard():
        return
    for done in finished:
        verdict, outcome = done.outcome.verdict, done.outcome
        if verdict is None:
            said, reason, identity = "trouble", outcome.trouble, done.image.announced
        elif done.image.id not in recorded:
            said, reason, identity = "overtaken", None, verdict.upload.identity
        else:
            said, reason, identity = verdict.state, verdict.reason, verdict.upload.identity
        upload_events.upload_processed(
            done.image.source,
            done.image.key,
            identity,
            image_id=done.image.id,
            outcome=said,
            reason=reason,
            began=outcome.began,
            worker=outcome.worker,
            milliseconds=dict(outcome.milliseconds),
        )
