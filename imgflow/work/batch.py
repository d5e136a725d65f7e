"""One batch of images, from rows to tasks, and from outcomes to rows and events.

The order makes it safe to stop anywhere: outputs first (by the workers), then rows, then events.
Each step may be repeated: outputs have immutable names, rows are updated to the same values, and
an extra event is harmless. What a dead run did not report about its images, the next run does (see
`catalog.postgres.run_locks`). Reporting to Dagster is in `orchestration.runs.execute`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from imgflow.advice import with_advice
from imgflow.catalog.lifecycle import remove_outputs
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image, Kind, Verdict
from imgflow.errors import Trouble
from imgflow.store.output_store import OutputStore
from imgflow.work.counting import count_finished, tell_finished
from imgflow.work.task_failures import in_words
from imgflow.work.tasks import Finished, Outcome, Summary, Task

logger = logging.getLogger(__name__)

# A flush costs two round trips and a commit, so it waits for this many results or seconds.
FLUSH_IMAGES = 200
FLUSH_SECONDS = 2.0


@dataclass(frozen=True)
class Family:
    """What distinguishes photographs from depth images in a run.

    Attributes:
        enabled: Every output of the family, with the fingerprint of its recipe.
        wanted: The outputs that were selected in this run.
        force: Rebuild outputs even where nothing changed.
        resumed: Ids of the runs whose process died and which this run continues; `force` does not
            rebuild what they made.
        retry_rejected: Retry rejected images whose upload has not changed, since a person asked.
    """

    enabled: Mapping[str, str]
    wanted: frozenset[str]
    force: bool = False
    resumed: frozenset[str] = frozenset()
    retry_rejected: bool = True


@dataclass(frozen=True)
class Plan:
    """What a batch has to do: one list for each thing that can happen to an image."""

    tasks: list[Task] = field(default_factory=list)
    unchanged: list[Image] = field(default_factory=list)
    still_rejected: list[Image] = field(default_factory=list)
    deleted: list[Image] = field(default_factory=list)


def plan(images: Iterable[Image], family: Family, run_id: str) -> Plan:
    """Decide for every image what this run does with it, from the catalogue alone."""
    result = Plan()
    for image in images:
        if image.state == "deleted":
            result.deleted.append(image)
            continue
        is_processed = image.processed == image.announced
        if is_processed and image.state == "rejected" and not family.retry_rejected:
            result.still_rejected.append(image)
            continue
        stale = stale_outputs(image, family)
        if is_processed and image.state == "ready" and not stale:
            result.unchanged.append(image)
            continue
        result.tasks.append(
            Task(
                image_id=image.id,
                upload=image.newest_upload,
                run_id=run_id,
                wanted=stale,
                enabled=family.enabled,
                own=image.content,
                is_known=is_processed,
            )
        )
    return result


def with_twins(tasks: Sequence[Task], catalog: PostgresCatalog, kind: Kind) -> list[Task]:
    """Give each task the known contents of its upload's size, which may have the same bytes."""
    known = catalog.same_size(kind, [task.upload.size for task in tasks])
    return [
        replace(
            task,
            twins=tuple(
                content
                for content in known.get(task.upload.size, ())
                if content.key != task.upload.key
            ),
        )
        for task in tasks
    ]


def stale_outputs(image: Image, family: Family) -> frozenset[str]:
    """The wanted outputs that are missing, were made with another recipe, or are forced."""
    if family.force and image.run_id not in family.resumed:
        return family.wanted
    return frozenset(
        name
        for name in family.wanted
        if image.outputs.get(name, {}).get("fingerprint") != family.enabled[name]
    )


Report = Callable[[list[Finished]], list[Finished]]
"""Called with the ready images once their rows are committed. Returns those whose events could not
be made, with the rejection to record for each."""


def run_tasks(
    images: Sequence[Image],
    outcomes: Iterator[tuple[Task, Outcome]],
    catalog: PostgresCatalog,
    *,
    open_outputs: Callable[[], OutputStore],
    report: Report,
    summary: Summary,
) -> list[str]:
    """Write rows and report events in bulk, as the outcomes of a batch come in.

    Args:
        images: The rows that the tasks were planned from.
        outcomes: What the workers answer, in any order.
        catalog: Receives the results, before any event is reported.
        open_outputs: Opens the output store; called only when outputs have to be deleted because
            the image was overwritten, deleted or processed by another run meanwhile.
        report: Sends the events of ready images.
        summary: Updated in place.

    Returns:
        Keys of images that were overwritten or deleted since they were announced. The caller
        checks their uploads again.
    """
    by_id = {image.id: image for image in images}
    buffer: list[Finished] = []
    outdated: list[str] = []
    flushed = time.monotonic()
    flush = partial(
        _flush, catalog=catalog, open_outputs=open_outputs, report=report, summary=summary
    )
    for task, outcome in outcomes:
        if outcome.is_outdated:
            outdated.append(task.upload.key)
            continue
        buffer.append(Finished(by_id[task.image_id], outcome))
        if len(buffer) >= FLUSH_IMAGES or time.monotonic() - flushed > FLUSH_SECONDS:
            flush(buffer)
            buffer = []
            flushed = time.monotonic()
    flush(buffer)
    return outdated


def _flush(
    buffer: list[Finished],
    *,
    catalog: PostgresCatalog,
    open_outputs: Callable[[], OutputStore],
    report: Report,
    summary: Summary,
) -> None:
    buffer, recorded = _recorded(buffer, catalog)
    tell_finished(buffer, recorded)
    summary.bytes += sum(
        done.outcome.verdict.upload.size for done in buffer if done.outcome.verdict is not None
    )
    for code in {done.outcome.trouble_code for done in buffer if done.outcome.trouble}:
        troubled = {
            done.image.id: done.outcome.trouble
            for done in buffer
            if done.outcome.trouble and done.outcome.trouble_code == code
        }
        catalog.note_trouble(troubled, code=code)
    ready = []
    for_nothing = {}
    for done in buffer:
        verdict = done.outcome.verdict
        if verdict is None:
            summary.troubled[done.image.key] = done.outcome.trouble or ""
        elif done.image.id not in recorded:
            summary.overtaken.append(done.image.key)
            for_nothing[done.image.id] = verdict.outputs
        elif verdict.state == "rejected":
            summary.rejected[done.image.key] = _reason(done)
        else:
            ready.append(done)
    if ready:
        unreportable = report(ready)
        _recorded(unreportable, catalog)
        for done in unreportable:
            summary.rejected[done.image.key] = _reason(done)
        failed = {done.image.id: done for done in unreportable}
        buffer = [failed.get(done.image.id, done) for done in buffer]
        summary.processed += len(ready) - len(unreportable)
    count_finished(catalog, [done for done in buffer if done.image.id not in for_nothing])
    if for_nothing:
        remove_outputs(catalog, open_outputs(), for_nothing)


def _reason(done: Finished) -> str:
    verdict = done.outcome.verdict
    return with_advice(verdict.reason or "", verdict.reason_code) if verdict else ""


def _recorded(
    finished: list[Finished], catalog: PostgresCatalog
) -> tuple[list[Finished], set[int]]:
    """Write results; one that the database refuses fails its own image only.

    Returns:
        The images with their final outcomes, and the ids of the rows that were updated.
    """
    verdicts = [done.outcome.verdict for done in finished if done.outcome.verdict is not None]
    try:
        return finished, catalog.record(verdicts)
    except Trouble:
        raise
    except Exception as error:
        if len(finished) == 1:
            alone = failed(finished[0], error)
            # If the database refuses this too, the image is not at fault.
            return [alone], catalog.record([alone.outcome.verdict] if alone.outcome.verdict else [])
    middle = len(finished) // 2
    first, first_ids = _recorded(finished[:middle], catalog)
    second, second_ids = _recorded(finished[middle:], catalog)
    return first + second, first_ids | second_ids


def failed(done: Finished, error: Exception) -> Finished:
    """The same image, rejected because recording its outcome raised this error."""
    verdict = done.outcome.verdict
    if verdict is None:
        raise error
    failure = in_words(error)
    logger.error(
        "run %s, image %r: %s\n%s", verdict.run_id, done.image.key, failure.reason, failure.trace
    )
    rejection = Verdict(
        image_id=verdict.image_id,
        upload=verdict.upload,
        state="rejected",
        run_id=verdict.run_id,
        recipe=None,
        reason=failure.reason,
        reason_code="failed",
    )
    return replace(done, outcome=replace(done.outcome, verdict=rejection, made=(), pictures={}))
