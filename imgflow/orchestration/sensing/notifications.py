"""The sensor that takes S3 event notifications from a queue, so that uploads are seen at once.

A message only says which keys to look up. What counts is the object that the store has now, so
late, repeated and reordered messages cannot announce an older upload. A message is deleted once
everything it led to is committed; after an error it comes again, which does no harm. The sensor
`arrivals` (in `listing`) keeps listing and finds what no message announced. The messages' format is
in `store.s3.bucket_events`, the queue in `store.s3.sqs`.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.postgres.sensing import UnreadableMessage, UnreadableMessages
from imgflow.errors import NotOurs, Trouble
from imgflow.foreign_text import visible
from imgflow.observability import context as log_context
from imgflow.observability import traces
from imgflow.orchestration.families import Family
from imgflow.orchestration.resources import CatalogResource, QueueResource, StoresResource
from imgflow.orchestration.runs.requests import Batching, request_batches, sensor_result
from imgflow.orchestration.sensing.listing import Follow, ticking
from imgflow.settings.variables import OnDelete
from imgflow.store.config import StoreConfig
from imgflow.store.objects import Source, SourceObject, look_at
from imgflow.store.s3.bucket_events import (
    Record,
    Scope,
    is_folder_marker,
    newest_by_key,
    read_message,
)
from imgflow.store.s3.sqs import Message, Queue

# A request to an empty queue waits for a message, so ticks may follow each other closely.
INTERVAL_SECONDS = 1

PAGE_KEYS = 1_000

# A tick has a minute. 500 HEAD requests take about a second, but a store that is down would use up
# the whole minute.
HEADS_SECONDS = 20.0

REASONS_SHOWN = 5


@dataclass
class Taken:
    """What one tick took from the queue.

    Attributes:
        messages: Number of messages received.
        pending: Number of images that they queued.
        gone: Number of keys without an object.
        not_followed: Why nothing was done about the gone objects; None if something was.
        ignored: Number of ignored events by their kind; they do not concern the source, or a newer
            event for the same key came with them.
        unreadable: Messages of which at least a part could not be read.
        troubled: Error by key, for objects that could not be looked up; their messages come again.
        undeleted: Number of messages that the queue did not delete; they come again harmlessly.
    """

    messages: int = 0
    pending: int = 0
    gone: int = 0
    not_followed: str | None = None
    ignored: Counter[str] = field(default_factory=Counter)
    unreadable: list[UnreadableMessage] = field(default_factory=list)
    troubled: dict[str, str] = field(default_factory=dict)
    undeleted: int = 0

    def warnings(self) -> list[str]:
        """What an operator should know, one sentence each."""
        said = [
            f"Message {message.message_id} could not be read: {message.reason}."
            for message in self.unreadable
        ]
        if self.not_followed:
            said.append(self.not_followed)
        if self.troubled:
            reason = next(iter(self.troubled.values()))
            said.append(f"{len(self.troubled)} objects could not be looked at: {reason}")
        if self.undeleted:
            said.append(f"{self.undeleted} messages were not deleted and will come again.")
        return said

    def line(self) -> str:
        """A summary of the tick in a few sentences."""
        if not self.messages:
            return "No messages."
        said = [f"{self.messages} messages: {self.pending} images new or changed, {self.gone} gone"]
        said += [f"{number} {what} ignored" for what, number in sorted(self.ignored.items())]
        shown = self.warnings()[:REASONS_SHOWN]
        rest = len(self.warnings()) - len(shown)
        more = [f"And {rest} more: `imgflow status`."] if rest else []
        return " ".join([", ".join(said) + ".", *shown, *more])


def scope_of(config: StoreConfig) -> Scope | None:
    """Which objects belong to a source; None for a folder, which sends no notifications."""
    source, output = config.locations()
    if source.scheme != "s3":
        return None
    inside = output.below(source)
    return Scope(source.bucket, source.prefix, (inside,) if inside else ())


def take_in(
    queue: Queue,
    scope: Scope,
    source: Source,
    catalog: PostgresCatalog,
    follow: Follow,
) -> Taken:
    """Receive messages, commit what they lead to, and delete them.

    Args:
        queue: The queue to receive from.
        scope: Decides which objects concern the source.
        source: Answers what each object is now.
        catalog: Records uploads and unreadable messages.
        follow: Called with the keys of objects that are gone, before their messages are deleted.

    Raises:
        Trouble: The queue or the database does not answer; no message is lost.
    """
    # First: messages once received stay hidden for a while, even if they cannot be recorded.
    catalog.check()
    messages = queue.receive()
    taken = Taken(messages=len(messages))
    records_of = {message.id: _read(message, scope, taken) for message in messages}
    newest = newest_by_key(record for records in records_of.values() for record in records)
    if superseded := sum(map(len, records_of.values())) - len(newest):
        taken.ignored["superseded"] = superseded
    keys_of = {name: {scope.key(r) for r in records} for name, records in records_of.items()}
    found, taken.troubled = look_at(
        source, sorted(map(scope.key, newest.values())), seconds=HEADS_SECONDS
    )
    present = [upload for upload in found.values() if upload is not None]
    taken.pending = _announce(catalog, present)
    gone = [key for key, upload in found.items() if upload is None]
    if gone and _is_there(source, gone, taken):
        taken.not_followed = follow(gone)
        taken.gone = len(gone)
    UnreadableMessages(catalog.engine, catalog.source).keep(taken.unreadable)
    done = [m for m in messages if keys_of[m.id].isdisjoint(taken.troubled)]
    try:
        taken.undeleted = queue.delete(done)
    except Trouble:
        taken.undeleted = len(done)
    return taken


def notifications_sensor(
    families: Sequence[Family],
    jobs: Sequence[Any],
    *,
    batching: Batching,
    on_delete: OnDelete,
    interval_seconds: int = INTERVAL_SECONDS,
) -> dg.SensorDefinition:
    """Define the sensor that requests runs over what the queue's messages announce.

    Args:
        families: The families to request runs for.
        jobs: The job of each family.
        batching: How much a run takes, and how many runs there are at a time.
        on_delete: What a deleted upload does to its image.
        interval_seconds: Minimum seconds between two ticks.
    """

    @dg.sensor(
        name="notifications",
        jobs=list(jobs),
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for runs over the uploads that S3 event notifications announce.",
    )
    def notifications(
        context: dg.SensorEvaluationContext,
        catalog: CatalogResource,
        stores: StoresResource,
        queue: QueueResource,
    ) -> dg.SensorResult:
        scope = scope_of(stores.config)
        if scope is None:
            return dg.SensorResult(
                skip_reason="IMGFLOW_SQS_QUEUE_URL is set, but IMGFLOW_SOURCE_URL "
                f"({stores.source_name}) is a folder, of which no queue tells anything."
            )
        try:
            began = time.time()
            with ticking(
                catalog,
                stores,
                on_delete,
                sensor="notifications",
                interval_seconds=interval_seconds,
            ) as (rows, source, follow):
                taken = take_in(queue.open(), scope, source, rows, follow)
                for warning in taken.warnings():
                    context.log.warning(visible(warning))
                requests = request_batches(families, rows, context.instance, batching=batching)
                if taken.messages:
                    traces.ticked(
                        "notifications",
                        began,
                        {
                            "imgflow.messages": taken.messages,
                            "imgflow.pending": taken.pending,
                            "imgflow.runs": len(requests.batches),
                        },
                    )
        except (Trouble, NotOurs) as trouble:
            return dg.SensorResult(skip_reason=str(trouble))
        return sensor_result(requests, otherwise=taken.line())

    return notifications


def _read(message: Message, scope: Scope, taken: Taken) -> list[Record]:
    """Return the records that concern the source; note in `taken` what else a message has."""
    reading = read_message(message.body)
    taken.ignored.update(reading.ignored)
    if reading.unreadable:
        reasons = "; ".join(reading.unreadable[:REASONS_SHOWN])
        rest = len(reading.unreadable) - REASONS_SHOWN
        more = f"; and {rest} more" if rest > 0 else ""
        taken.unreadable.append(UnreadableMessage(message.id, reasons + more, message.body))
    concerning: list[Record] = []
    for record in reading.records:
        refusal = scope.refusal(record)
        if refusal is None:
            concerning.append(record)
        else:
            taken.ignored[refusal] += 1
    return concerning


def _announce(catalog: PostgresCatalog, uploads: Sequence[SourceObject]) -> int:
    """Announce the objects that exist, and return how many images were queued."""
    # Events may not name a size, so folder markers can be recognised only now.
    images = [upload for upload in uploads if not is_folder_marker(upload.key, upload.size)]
    pending = 0
    for start in range(0, len(images), PAGE_KEYS):
        with log_context.bound(seen_by="notification"):
            announcement = catalog.announce(images[start : start + PAGE_KEYS])
        pending += len(announcement.new) + len(announcement.changed)
    return pending


def _is_there(source: Source, gone: Sequence[str], taken: Taken) -> bool:
    """Whether the bucket itself exists; without it, every object would seem to be gone."""
    try:
        source.check()
    except Trouble as trouble:
        taken.troubled.update(dict.fromkeys(gone, str(trouble)))
        return False
    return True
