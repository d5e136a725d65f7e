"""What a run does with its images: from partition keys to tasks, and from outcomes to its end.

Which images a run takes is decided in `requests`; planning and recording a batch is in
`imgflow.work.batch`, the contents of events in `materializations`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import dagster as dg

from imgflow.advice import with_advice
from imgflow.catalog.partition_keys import object_key
from imgflow.catalog.postgres.ownership import claim
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image
from imgflow.errors import SourceChanged, Trouble
from imgflow.foreign_text import visible
from imgflow.orchestration.dagster_storage.event_log import ImageEvent, report_counts
from imgflow.orchestration.families import Family
from imgflow.orchestration.runs.image_events import report_images
from imgflow.orchestration.runs.materializations import (
    finished_events,
    selected_names,
    unchanged_events,
)
from imgflow.store.objects import Source, look_at
from imgflow.store.output_store import OutputStore
from imgflow.work import batch
from imgflow.work.pool import WorkerPool, group_size
from imgflow.work.tasks import Finished, Outcome, Summary, Task, WorkerConfig

# Seconds between lines of progress, each of which is an event that costs milliseconds. Each wait is
# twice as long as the one before: 6 lines in a minute, 15 in a quarter of an hour, and never more
# than one a second.
FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0


Item = TypeVar("Item")


class Progress:
    """Counts finished images and logs a line now and then."""

    def __init__(
        self,
        total: int,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock.

        Args:
            total: Number of images to process.
            say: Receives each line.
            clock: Returns seconds that only ever rise.
        """
        self._total = total
        self._say = say
        self._clock = clock
        self._done = 0
        self._began = self._last = clock()
        self._wait = FIRST_SECONDS

    def counting(self, outcomes: Iterable[Item]) -> Iterator[Item]:
        """Pass on the outcomes, counting one image for each."""
        for outcome in outcomes:
            yield outcome
            self._done += 1
            now = self._clock()
            # No line for the last image: the run itself reports that it is done.
            if now - self._last >= self._wait and self._done < self._total:
                self._last = now
                self._wait = min(2 * self._wait, LONGEST_SECONDS)
                self._say(progress_line(self._done, self._total, now - self._began))


def progress_line(done: int, total: int, seconds: float) -> str:
    """One line with the share done, the rate and the remaining time.

    Args:
        done: Number of finished images, at least 0.
        total: Number of all images, larger than `done`.
        seconds: Time that the finished images took.
    """
    share = f"{done:,} of {total:,} images ({100 * done // total} %)"
    if not done or seconds <= 0:
        return f"{share} after {_time(seconds)}."
    rate = done / seconds
    return f"{share}, {rate:.3g} a second, {_time((total - done) / rate)} to go."


def _time(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


# Run tag with the name of the batch, on runs that a sensor or `imgflow ingest` requested. Such runs
# trust the listing that led to them; others were started by a person and check the objects first.
BATCH_TAG = "imgflow/batch"

# Dagster's tag for a run that resumes a failed one, by automatic retry or by "from failure".
RESUME_TAG = "dagster/is_resume_retry"

LISTED_IN_FAILURE = 50

REJECTED_BEFORE = "rejected before"
"""Name of the count of images that a run covered but did not retry."""


def asked_batch(run: dg.DagsterRun) -> str | None:
    """The batch that a run was requested for; None if a person started it.

    Re-executing a run copies its tags, but a person did it all the same.
    """
    return None if run.parent_run_id else run.tags.get(BATCH_TAG)


def batch_of(run: dg.DagsterRun) -> str:
    """The name under which a run locks its images."""
    return asked_batch(run) or run.run_id


def resumed_runs(instance: dg.DagsterInstance, run: dg.DagsterRun) -> frozenset[str]:
    """Ids of the failed runs that this one resumes, directly or through others."""
    found: set[str] = set()
    while run.tags.get(RESUME_TAG) == "true" and run.parent_run_id:
        found.add(run.parent_run_id)
        before = instance.get_run_by_id(run.parent_run_id)
        if before is None:
            break
        run = before
    return frozenset(found)


def process_partitions(
    context: dg.AssetExecutionContext,
    family: Family,
    *,
    catalog: PostgresCatalog,
    source: Source,
    open_outputs: Callable[[], OutputStore],
    worker: WorkerConfig,
    workers: int,
    force: bool,
    finished: Callable[[Sequence[str]], None] = lambda _keys: None,
) -> Summary:
    """Process the partitions of a run; `finished` is called with the keys of images made."""
    keys = [object_key(partition) for partition in context.partition_keys]
    is_asked_by_person = asked_batch(context.run) is None
    selected = selected_names(context.selected_asset_keys)
    wanted = batch.Family(
        enabled=family.outputs,
        wanted=frozenset(selected & set(family.outputs)),
        force=force,
        resumed=resumed_runs(context.instance, context.run),
        retry_rejected=is_asked_by_person,
    )
    summary = Summary()
    if is_asked_by_person:
        summary.troubled.update(look_again(keys, source, catalog))
    images = [
        image for image in catalog.by_keys(keys).values() if image.key not in summary.troubled
    ]
    run_id = context.run.run_id
    catalog.holds.begin(run_id, batch_of(context.run), family.kind, [image.id for image in images])
    plan = batch.plan(images, wanted, run_id)
    summary.unchanged = len(plan.unchanged)
    summary.still_rejected.update(
        {
            image.key: with_advice(image.reason or "", image.reason_code)
            for image in plan.still_rejected
        }
    )
    summary.overtaken += [image.key for image in plan.deleted]
    # A range may cover thousands of unchanged images; all their events would take a gigabyte.
    for start in range(0, len(plan.unchanged), batch.FLUSH_IMAGES):
        part = plan.unchanged[start : start + batch.FLUSH_IMAGES]
        report_images(context, list(unchanged_events(family, selected, part)))
    if unreported := [image.id for image in plan.unchanged if image.unreported]:
        catalog.reported(unreported)
    context.log.info(
        f"{len(keys)} {family.kind} images: {len(plan.tasks)} to process, "
        f"{len(plan.unchanged)} unchanged, {len(plan.still_rejected)} still rejected."
    )
    if plan.tasks:
        tasks = plan.tasks if force else batch.with_twins(plan.tasks, catalog, family.kind)
        trouble = _trouble_with(catalog, open_outputs)

        progress = Progress(len(tasks), context.log.info)
        with WorkerPool(worker, min(workers, len(plan.tasks))) as pool:

            def run(tasks: Sequence[Task], images: Sequence[Image]) -> list[str]:
                """Run tasks, and return keys whose object is no longer the announced upload."""
                together = group_size(worker.stores) if family.is_quick else 1
                outcomes = pool.outcomes(tasks, family.work, worker.seconds_of, together=together)
                kept = ((task, Outcome(trouble=trouble)) for task in tasks)
                return batch.run_tasks(
                    images,
                    progress.counting(kept if trouble else outcomes),
                    catalog,
                    open_outputs=open_outputs,
                    report=partial(_report, context, family, selected, finished),
                    summary=summary,
                )

            if outdated := run(tasks, images):
                # Overwritten since they were listed: this run processes the newer uploads too.
                found = catalog.by_keys(outdated)
                deleted = {key for key, image in found.items() if image.state == "deleted"}
                summary.overtaken += sorted(deleted)
                outdated = [key for key in outdated if key not in deleted]
                summary.troubled.update(look_again(outdated, source, catalog))
                found = catalog.by_keys([key for key in outdated if key not in summary.troubled])
                images = list(found.values())
                changing = {
                    key: f"{key!r} is being overwritten all the time: each look finds another"
                    for key in run(batch.plan(images, wanted, run_id).tasks, images)
                }
                summary.troubled.update(changing)
                reasons = {found[key].id: reason for key, reason in changing.items()}
                catalog.note_trouble(reasons, code=SourceChanged.code)
    judged = summary.processed + len(summary.rejected)
    catalog.holds.end(run_id, images=judged, size=summary.bytes)
    return summary


def _trouble_with(catalog: PostgresCatalog, open_outputs: Callable[[], OutputStore]) -> str:
    """What prevents this run from writing outputs; empty if nothing does.

    Raises:
        NotOurs: The location belongs to another catalogue.
    """
    try:
        claim(catalog, open_outputs(), afresh=True)
    except Trouble as trouble:
        return str(trouble)
    return ""


def _report(
    context: dg.AssetExecutionContext,
    family: Family,
    selected: Iterable[str],
    finished: Callable[[Sequence[str]], None],
    done: Sequence[Finished],
) -> list[Finished]:
    """Report ready images, and return, as rejected, those for which events cannot be made."""
    events: list[ImageEvent] = []
    made, failed = [], []
    for one in done:
        try:
            events += finished_events(family, selected, [one])
            made.append(one.image.key)
        except Exception as error:  # odd facts of one image must not stop the others
            failed.append(batch.failed(one, error))
    report_images(context, events)
    finished(made)
    return failed


def look_again(keys: Sequence[str], source: Source, catalog: PostgresCatalog) -> dict[str, str]:
    """Announce the current uploads of these keys.

    Returns:
        Reason by key, where there is no object or the store did not answer.
    """
    found, unknown = look_at(source, keys)
    catalog.announce([upload for upload in found.values() if upload is not None])
    gone = [key for key, upload in found.items() if upload is None]
    catalog.forget_uploads(gone)
    return unknown | {
        key: f"there is no object {key!r} in {source.location.url}; it was deleted, or its "
        "partition was added by hand"
        for key in gone
    }


def conclude(context: dg.AssetExecutionContext, summary: Summary) -> None:
    """Report what became of the batch, and fail the run if any image has no outputs.

    Raises:
        Failure: Some images were rejected or could not be processed. Their partitions turn red;
            the others stay as reported. Dagster retries nothing: a rejected image stays rejected
            until it changes, and the sensor requests the others again.
    """
    done = f"{summary.processed} processed, {summary.unchanged} unchanged"
    if summary.overtaken:
        shown = ", ".join(map(visible, summary.overtaken[:LISTED_IN_FAILURE]))
        done += f", {len(summary.overtaken)} deleted or done by another run meanwhile ({shown})"
    counts = {
        "processed": summary.processed,
        "unchanged": summary.unchanged,
        "rejected": len(summary.rejected),
        REJECTED_BEFORE: len(summary.still_rejected),
        "in trouble": len(summary.troubled),
    }
    if not (summary.rejected or summary.still_rejected or summary.troubled):
        report_counts(context, f"{done}.", counts)
        return
    lines = [f"{done}, {len(summary.rejected)} rejected, {len(summary.troubled)} in trouble."]
    if summary.rejected:
        lines.append(
            "Rejected; the others are done. Retrying won't help until the file or a setting "
            "changes; new uploads are picked up automatically:"
        )
        lines += _listed(summary.rejected)
    if summary.still_rejected:
        # If the run succeeded, Dagster would show their partitions as missing rather than red.
        lines.append("Between these, rejected before and unchanged since; nothing was tried:")
        lines += _listed(summary.still_rejected)
    if summary.troubled:
        lines.append("Delayed by an external error; they will be retried automatically:")
        lines += _listed(summary.troubled)
    raise dg.Failure(
        description="\n".join(lines),
        metadata=counts,
        allow_retries=False,
    )


def _listed(reasons: dict[str, str]) -> list[str]:
    first = list(reasons.items())[:LISTED_IN_FAILURE]
    shown = [f"  {visible(key)}: {visible(reason)}" for key, reason in first]
    if len(reasons) > len(shown):
        shown.append(f"  … and {len(reasons) - len(shown)} more: `imgflow status`")
    return shown
