"""What a run adds to the counters of its source: one statement a flush and one at its end.

Counts follow rows and events, so whoever is counted as processed is; a process that dies in between
has counted less than it did, never more.
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
    """Count images whose verdict was just written."""
    now = datetime.now(UTC)
    counts: defaultdict[Series, float] = defaultdict(float)
    for done in finished:
        for one, value in _counts(done, now):
            counts[one] += value
    Counters(catalog.engine, catalog.source).add(counts)


def count_run(catalog: PostgresCatalog, kind: Kind, summary: Summary) -> None:
    """Count what no verdict was written about, at the end of a run.

    Rejected images that were met again are not counted: nothing was found out about them.
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
        return []  # in trouble, which `count_run` counts
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
        # Only new uploads arrive: `updated_at` of another image is the time of its last verdict.
        # The clocks of the database and of this machine may differ a little.
        seconds = max(0.0, (now - done.image.updated_at).total_seconds())
        counts += [
            (counters.bucket_of(ARRIVAL_TO_READY, seconds, ARRIVAL_BOUNDS, kind=kind), 1),
            (series(f"{ARRIVAL_TO_READY}_sum", kind=kind), seconds),
        ]
    return counts


# A line and a span for each image that a run has done with: in logs and traces, not in events.
#
# What goes through `context.log` is an event in Dagster's database for ever; these are not.


def tell_finished(finished: Iterable[Finished], recorded: Collection[int]) -> None:
    """Say what became of images.

    Args:
        finished: by workers.
        recorded: ids of the rows that took their verdict.
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
