"""Which failed runs are new, what a message says about them, and what each channel has received.

The sensor that sends the messages is in `failure_sensor`.
"""

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

# Event ids are assigned before the events are stored, so an event may appear after a later one.
SETTLE_SECONDS = 2.0

# Maximum runs per tick; the rest follow in the next message.
MOST_RUNS = 200

# Limits of a message: runs described in full, lines of each run, characters of each line.
DESCRIBED_RUNS = 10
LINES = 25
LINE_CHARACTERS = 600

# A channel that refuses a message is retried after one minute, two, four … up to an hour.
FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3_600.0

COUNTS = ("rejected", "in trouble")

BY_ITSELF = "What it left undone is asked for again by itself, where the images still wait."


@dataclass(frozen=True)
class FailedRun:
    """A run that failed and that Dagster will not retry.

    Attributes:
        job: Name of the job, or the selected assets if it was launched from an asset's page.
        asked_by: Who launched it, in words.
        ended_at: Unix time.
        counts: Number of images by what became of them; empty if the run crashed or died.
        text: What the run reported about its images or its end; may have several lines.
    """

    id: str
    job: str
    asked_by: str
    ended_at: float
    counts: Mapping[str, int]
    text: str

    @property
    def is_news(self) -> bool:
        """Whether it is about more than images that were rejected and reported before."""
        return not self.counts.get(REJECTED_BEFORE) or any(map(self.counts.get, COUNTS))


@dataclass(frozen=True)
class NewFailures:
    """Failed runs in the order they failed, and the id of the last event that was read."""

    runs: list[FailedRun]
    last: int


def newest_failure(instance: dg.DagsterInstance) -> int:
    """Id of the newest event of a failed run; 0 if no run has failed yet."""
    found = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
    return found[0].storage_id if found else 0


def failures_after(
    instance: dg.DagsterInstance, after: int, jobs: frozenset[str], assets: frozenset[dg.AssetKey]
) -> NewFailures:
    """Read which runs have failed since an event.

    Args:
        instance: May also hold runs of other projects, which are skipped.
        after: Id of the last event that was read.
        jobs: Names of our jobs.
        assets: Our assets, which can also be launched without one of our jobs.
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
            continue  # the code server and a tick may both report that its process is dead
        if run.job_name in jobs or not assets.isdisjoint(run.asset_selection or ()):
            said = (entry.dagster_event and entry.dagster_event.message) or entry.user_message
            runs.append(_described(instance, run, entry.timestamp, said))
    return NewFailures(runs, last)


def _described(
    instance: dg.DagsterInstance, run: dg.DagsterRun, ended_at: float, said: str
) -> FailedRun:
    """Describe a failed run by what it reported: its images, an error, or its process's end."""
    counts: dict[str, int] = {}
    # If the process was killed, the code server's last event before names the signal.
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
    """One line: how many runs failed, and how many images were rejected or in trouble."""
    number = f"{len(runs)} runs" if len(runs) > 1 else "a run"
    sums = {name: sum(run.counts.get(name, 0) for run in runs) for name in COUNTS}
    images = ", ".join(f"{count} {name}" for name, count in sums.items() if count)
    return f"imgflow: {number} failed" + (f" (images: {images})" if images else "")


def message_of(runs: Sequence[FailedRun], *, dagster_url: str, gallery_url: str) -> str:
    """The text of a message, of bounded length: each run with its link and images."""
    parts = [line_of(run, dagster_url) + "\n" + _shortened(run.text) for run in runs]
    if len(parts) > DESCRIBED_RUNS:
        more = "\n".join(line_of(run, dagster_url) for run in runs[DESCRIBED_RUNS:])
        parts = [*parts[:DESCRIBED_RUNS], f"Besides, with what they said in the UI:\n{more}"]
    parts.append(f"Rejected images: {gallery_url}/?state=rejected")
    return "\n\n".join(parts)


def line_of(run: FailedRun, dagster_url: str) -> str:
    """One line about a run: job, who launched it, when it failed, and its link."""
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
    """What one channel has received.

    Attributes:
        after: Id of the last event that was reported to it.
        sent_at: Unix time of the last message that it accepted.
        attempts: Number of failed attempts since then.
        not_before: Unix time of the earliest next attempt.
    """

    after: int
    sent_at: float = 0.0
    attempts: int = 0
    not_before: float = 0.0

    def is_due(self, now: float, minutes: float) -> bool:
        """Whether a message may be sent now, with this many minutes between two."""
        return now >= max(self.not_before, self.sent_at + 60 * minutes)

    def took(self, last: int, now: float) -> None:
        """Note that the channel accepted a message about everything up to this event."""
        self.after, self.sent_at, self.attempts, self.not_before = last, now, 0, 0.0

    def refused(self, now: float) -> None:
        """Note that the channel refused a message, and when to retry."""
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self.attempts, 10))
        self.attempts += 1
        self.not_before = now + pause


@dataclass
class Ledger:
    """What was reported to whom. It is the sensor's complete cursor, and contains no URL.

    Attributes:
        logged: Id of the last event that is in the sensor's own log.
        channels: State of each channel, by the digest of its URL.
    """

    logged: int
    channels: dict[str, Told] = field(default_factory=dict)

    @classmethod
    def from_cursor(cls, cursor: str | None) -> Ledger | None:
        """Read a cursor; None if there is none yet or it cannot be read."""
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
        """Keep only the configured channels; a new one gets the failures after this event."""
        self.channels = {
            digest: self.channels.get(digest, Told(since)) for digest in map(digest_of, urls)
        }
