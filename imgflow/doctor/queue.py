"""The queue: whether it may be received from, and whether the bucket sends it what it should."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from imgflow.doctor.findings import Finding, notice, ok, wrong
from imgflow.settings.variables import Settings
from imgflow.store.location import Location
from imgflow.store.s3.sqs import SqsQueue

CREATED = ("s3:ObjectCreated:*", "s3:ObjectCreated:Put")


def check_queue(settings: Settings) -> Iterator[Finding]:
    """Whether the queue answers and lets us receive and delete."""
    if not settings.sqs_queue_url:
        yield ok("queue", "none is set; the listing finds uploads")
        return
    queue = SqsQueue(settings.sqs_queue_url, wait_seconds=0, most_messages=1, most_seconds=5)
    queue.check()
    yield ok("queue", f"{settings.sqs_queue_url} answers, and messages may be received and deleted")


def check_wiring(settings: Settings) -> Iterator[Finding]:
    """Whether the bucket sends the events of the source to the queue."""
    if not settings.sqs_queue_url:
        return
    stores = settings.stores
    source, _ = stores.locations()
    if source.scheme != "s3":
        yield notice(
            "events",
            f"{source.url} is a folder, which sends no events to IMGFLOW_SQS_QUEUE_URL; unset it",
        )
        return
    from imgflow.store.s3.admin import event_targets  # boto3

    targets = event_targets(source, settings.s3_checksums)
    if targets is None:
        yield notice(
            "events",
            f"whether {source.bucket} sends them to the queue cannot be seen; allow "
            "s3:GetBucketNotification (`imgflow iam --doctor`), or look yourself",
        )
        return
    yield _judge(source, settings.sqs_queue_url, targets)


def _judge(source: Location, url: str, targets: Mapping[str, Sequence[Any]]) -> Finding:
    name = urlsplit(url).path.rpartition("/")[2]
    to_queue = [
        target
        for target in targets.get("QueueConfigurations", [])
        if target["QueueArn"].rpartition(":")[2] == name
    ]
    mend = (
        f"let it send s3:ObjectCreated:* and s3:ObjectRemoved:* of the prefix {source.prefix!r} "
        "there (`aws s3api put-bucket-notification-configuration`)"
    )
    if not to_queue:
        if targets.get("TopicConfigurations") or "EventBridgeConfiguration" in targets:
            return ok(
                "events", f"{source.bucket} sends them through SNS or EventBridge; not followed"
            )
        return wrong("events", f"{source.bucket} sends none to the queue {name}; {mend}")
    creating = [target for target in to_queue if set(CREATED) & set(target["Events"])]
    if not creating:
        return wrong("events", f"{source.bucket} tells {name} of no uploads; {mend}")
    rules = [_filter(target) for target in creating]
    if not any(source.prefix.startswith(prefix) for prefix, _ in rules):
        prefixes = ", ".join(repr(prefix) for prefix, _ in rules)
        return wrong("events", f"{source.bucket} tells {name} of {prefixes} only; {mend}")
    if all(suffix for prefix, suffix in rules if source.prefix.startswith(prefix)):
        return wrong(
            "events",
            f"{source.bucket} tells {name} of some suffixes only, and others wait for the "
            f"listing; {mend}",
        )
    return ok("events", f"{source.bucket} sends those of {source.prefix!r} to {name}")


def _filter(target: Mapping[str, Any]) -> tuple[str, str]:
    rules = target.get("Filter", {}).get("Key", {}).get("FilterRules", [])
    found = {rule["Name"].lower(): rule["Value"] for rule in rules}
    return found.get("prefix", ""), found.get("suffix", "")
