"""Failed runs as people are told of them: which are new, what to say, and to whom it was said."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from imgflow.foreign_text import visible
from imgflow.orchestration.runs.execute import REJECTED_BEFORE
from imgflow.settings.channels import digest_of

# Ids of events are given before the events are stored, so one may appear behind a later one.
SETTLE_SECONDS = 2.0

# Told at once. What is beyond follows in the next message.
MOST_RUNS = 200

# Of a message: runs that are described, and lines of each.
DESCRIBED_RUNS = 10
LINES = 25
LINE_CHARACTERS = 600

# A channel that does not take a message is tried again after one minute, two, four … an hour.
FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3_600.0

COUNTS = ("rejected", "in trouble")

BY_ITSELF = "What it left undone is asked for again by itself, where the images still wait."


@dataclass(frozen=True)
class FailedRun:
    """A run that failed and is not retried by Dagster.

    Attributes:
        id: of the run.
        job: its name, as people know it.
        asked_by: who launched it.
        ended_at: Unix time.
        counts: images by what became of them; empty where the run died or broke.
        text: what it said of its images, or of its end.
    """

    id: str
    job: str
    asked_by: str
    ended_at: float
    counts: Mapping[str, int]
    text: str

    @property
    def is_news(self) -> bool:
        """Whether it tells more than of images that were rejected, and told of, before."""
        return not self.counts.get(REJECTED_BEFORE) or any(map(self.counts.get, COUNTS))


@dataclass(frozen=True)
class NewFailures:
    """Failed runs in the order in which they failed, and the event up to which they were read."""

    runs: list[FailedRun]
    last: int


def newest_failure(instance: dg.DagsterInstance) -> int:
    """Id of the newest event of a failed run; 0 when none has failed yet."""
    found = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
    return found[0].storage_id if found else 0


def failures_after(
    instance: dg.DagsterInstance, after: int, jobs: frozenset[str], assets: frozenset[dg.AssetKey]
) -> NewFailures:
    """Read which runs have failed since an event.

    Args:
        instance: has them.
        after: id of the event that was read last.
        jobs: names of our jobs; runs of others are none of our business.
        assets: ours, which may also be launched without a job.
    """
    wanted = dg.RunStatusChangeRecordsFilter(
        event_type=dg.DagsterEventType.RUN_FAILURE, after_storage_id=after
    )
    found = instance.fetch_run_status_changes(wanted, limit=MOST_RUNS, ascending=True).records
    settled = time.time() - SETTLE_SECONDS
    runs, last = [], after
    for record in found:
        entry = record.event_log_entry
        if entry.timestamp > settled:
            break
        last = record.storage_id
        run = instance.get_run_by_id(entry.run_id)
        if run is None or run.tags.get("dagster/will_retry") == "true":
            continue
        first, *_ = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
        if (first.timestamp, first.message) != (entry.timestamp, entry.message):
            continue  # the code server and a tick may both find its process dead
        if run.job_name in jobs or not assets.isdisjoint(run.asset_selection or ()):
            said = (entry.dagster_event and entry.dagster_event.message) or entry.user_message
            runs.append(_described(instance, run, entry.timestamp, said))
    return NewFailures(runs, last)


def _described(
    instance: dg.DagsterInstance, run: dg.DagsterRun, ended_at: float, said: str
) -> FailedRun:
    """What a run said when it failed: of its images, of an error, or of its process."""
    counts: dict[str, int] = {}
    # Of a process that was killed the code server says by which signal just before.
    engine = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    before = engine[-1].dagster_event.message if engine and engine[-1].dagster_event else None
    text = "\n".join(filter(None, (before, said, BY_ITSELF)))
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        data = entry.dagster_event.step_failure_data if entry.dagster_event else None
        if data is None:
            continue
        if data.user_failure_data is not None:
            text = data.user_failure_data.description or ""
            counts = {
                name: int(str(value.value))
                for name, value in data.user_failure_data.metadata.items()
            }
        elif data.error is not None:
            error = data.error.cause or data.error
            text = f"{error.message.strip()}\n{BY_ITSELF} A rerun helps once the cause is fixed."
    text = visible(text, keep="\n")
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    return FailedRun(
        id=run.run_id,
        job=", ".join(assets) if run.job_name.startswith("__") else run.job_name,
        asked_by=_asked_by(run.tags),
        ended_at=ended_at,
        counts=counts,
        text=text,
    )


def _asked_by(tags: Mapping[str, str]) -> str:
    for tag, what in (
        ("dagster/sensor_name", "the sensor {}"),
        ("dagster/schedule_name", "the schedule {}"),
        ("dagster/backfill", "the backfill {}"),
        ("imgflow/ingest", "`imgflow ingest`"),
    ):
        if tag in tags:
            return what.format(tags[tag])
    return "a person"


def title_of(runs: Sequence[FailedRun]) -> str:
    """One line: how many runs, and what became of how many images."""
    number = f"{len(runs)} runs" if len(runs) > 1 else "a run"
    sums = {name: sum(run.counts.get(name, 0) for run in runs) for name in COUNTS}
    images = ", ".join(f"{count} {name}" for name, count in sums.items() if count)
    return f"imgflow: {number} failed" + (f" (images: {images})" if images else "")


def message_of(runs: Sequence[FailedRun], *, dagster_url: str, gallery_url: str) -> str:
    """What is sent: each run with its link and images, of bounded length."""
    parts = [line_of(run, dagster_url) + "\n" + _shortened(run.text) for run in runs]
    if len(parts) > DESCRIBED_RUNS:
        more = "\n".join(line_of(run, dagster_url) for run in runs[DESCRIBED_RUNS:])
        parts = [*parts[:DESCRIBED_RUNS], f"Besides, with what they said in the UI:\n{more}"]
    parts.append(f"Rejected images: {gallery_url}/?state=rejected")
    return "\n\n".join(parts)


def line_of(run: FailedRun, dagster_url: str) -> str:
    """One run: what, by whom, when and where."""
    ended = datetime.fromtimestamp(run.ended_at, UTC)
    return (
        f"{run.job}, asked for by {run.asked_by}, failed at {ended:%Y-%m-%d %H:%M:%S} UTC: "
        f"{dagster_url.rstrip('/')}/runs/{run.id}"
    )


def _shortened(text: str) -> str:
    lines = [
        line if len(line) <= LINE_CHARACTERS else f"{line[:LINE_CHARACTERS]}…"
        for line in text.strip().splitlines()
    ]
    if len(lines) > LINES:
        lines = [*lines[:LINES], f"  … and {len(lines) - LINES} lines more, in the run"]
    return "\n".join(lines)


@dataclass
class Told:
    """How far one channel has come.

    Attributes:
        after: id of the last event that it was told of.
        sent_at: Unix time of the last message that it took.
        attempts: that failed since.
        not_before: Unix time of the next.
    """

    after: int
    sent_at: float = 0.0
    attempts: int = 0
    not_before: float = 0.0

    def is_due(self, now: float, minutes: float) -> bool:
        """Whether it may be sent something now."""
        return now >= max(self.not_before, self.sent_at + 60 * minutes)

    def took(self, last: int, now: float) -> None:
        """Note that it took a message about everything up to this event."""
        self.after, self.sent_at, self.attempts, self.not_before = last, now, 0, 0.0

    def refused(self, now: float) -> None:
        """Note that it did not take a message, and when to try again."""
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self.attempts, 10))
        self.attempts += 1
        self.not_before = now + pause


@dataclass
class Ledger:
    """What was said to whom; the whole of the sensor's cursor, and without any URL.

    Attributes:
        logged: id of the last event that the sensor's own log has.
        channels: by the digest of their URL.
    """

    logged: int
    channels: dict[str, Told] = field(default_factory=dict)

    @classmethod
    def from_cursor(cls, cursor: str | None) -> Ledger | None:
        """Read a cursor; None for one that is not understood, or the first."""
        try:
            found: Any = json.loads(cursor or "")
            known = {one.name for one in fields(Told)}
            channels = {
                digest: Told(**{name: value for name, value in told.items() if name in known})
                for digest, told in found["channels"].items()
            }
            return cls(int(found["logged"]), channels)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def cursor(self) -> str:
        """Write the cursor."""
        return json.dumps(asdict(self))

    def follow(self, urls: Sequence[str], since: int) -> None:
        """Keep the channels that are set; a new one is told of what fails from now on."""
        self.channels = {
            digest: self.channels.get(digest, Told(since)) for digest in map(digest_of, urls)
        }
