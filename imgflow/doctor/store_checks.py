"""Checks of source, outputs and queue: permissions, credentials, endpoint, region, clock, events.

The requests themselves are in `imgflow.store`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from imgflow.catalog.database.engine import Connected, make_engine, outages_in_words
from imgflow.catalog.postgres.ownership import Owner, identity, owner_of, refusal
from imgflow.doctor.findings import Finding, notice, ok, wrong
from imgflow.doctor.machine_checks import room_in
from imgflow.errors import ImgflowError, Trouble
from imgflow.settings.variables import Settings
from imgflow.store.config import StoreConfig
from imgflow.store.location import Location
from imgflow.store.naming import own_folders
from imgflow.store.s3.sqs import SqsQueue

# Signatures are rejected from a difference of 15 minutes on; clocks that follow a time server
# differ by less than this.
MOST_CLOCK_SECONDS = 60.0

# Number of objects to list in the source: one request, or the first ones in a folder.
LOOKED_AT = 1_000


def check_source(stores: StoreConfig, home: Path) -> Iterator[Finding]:
    """Check that the source can be listed, and its first object read."""
    location, _ = stores.locations()
    if later := _made_at_start("source", location, home):
        yield later
        return
    source = stores.open_source()
    page = source.list_page(None, LOOKED_AT)
    for warning in page.warnings:
        yield notice("source", warning)
    if not page.objects:
        yield ok("source", f"{location.url} can be listed; it has no object yet to be read")
        return
    upload = page.objects[0]
    try:
        next(iter(source.stream(upload)), b"")
    except ImgflowError as error:
        yield wrong("source", f"{location.url} can be listed, but {upload.key!r} not read: {error}")
        return
    yield ok("source", f"{location.url} can be listed and read")


def check_outputs(stores: StoreConfig, home: Path) -> Iterator[Finding]:
    """Check that outputs can be written, read, listed and deleted."""
    source, location = stores.locations()
    if later := _made_at_start("outputs", location, home):
        yield later
        return
    outputs = stores.open_outputs()
    # If it is left behind, the nightly reconciliation removes it, since no row names it.
    name, body = f"{own_folders(source.url)[0]}imgflow-doctor/@{uuid.uuid4().hex}", b"probe"
    try:
        outputs.put(name, body, "text/plain")
        is_same = outputs.get(name) == body
        list(outputs.names(f"{name.rpartition('/')[0]}/"))
    finally:
        outputs.delete([name])
    if not is_same:
        yield wrong(
            "outputs",
            f"{location.url} does not give back what was written; see what stands between "
            "imgflow and the store",
        )
        return
    if location.scheme == "file":
        room, is_enough = room_in(location.folder)
        if not is_enough:
            yield wrong(
                "outputs", f"{location.url}: only {room}; make room, or set IMGFLOW_OUTPUT_URL"
            )
            return
    if location.below(source):
        yield notice(
            "outputs",
            f"{location.url} lies inside the source, whose listing leaves them out and yet takes "
            "its time for them; a place beside the source costs none",
        )
        return
    yield ok("outputs", f"{location.url} can be written, read and deleted from")


def check_owner(settings: Settings, stores: StoreConfig) -> Iterator[Finding]:
    """Check that the output location belongs to this catalogue, without claiming it."""
    from imgflow.doctor.dagster_checks import has_database, running_url

    source, location = stores.locations()
    if _made_at_start("owner", location, settings.home) or not has_database(settings):
        yield ok("owner", f"{location.url} gets its owner at the first start")
        return
    outputs = stores.open_outputs()
    engine = make_engine(running_url(settings))
    try:
        with outages_in_words(engine):
            owner = owner_of(outputs)
            # Works even if the schema awaits a migration at the next start.
            is_made = sa.inspect(engine).has_table("catalogue")
            own = identity(Connected(engine, source.url)) if is_made else Owner("", "")
    except Trouble as trouble:
        yield notice("owner", f"whose the outputs are cannot be told yet: {trouble}")
        return
    finally:
        engine.dispose()
    if owner is None:
        yield ok("owner", f"{location.url} belongs to nobody yet; the next start takes it")
    elif owner.is_same(own):
        yield ok("owner", f"{location.url} belongs to this catalogue since {owner.since}")
    else:
        yield wrong("owner", refusal(outputs, owner, own))


def check_bucket(stores: StoreConfig) -> Iterator[Finding]:
    """Check the bucket's region and the service's clock, from the headers of its answers."""
    from imgflow.store.s3.admin import look_at_service  # boto3

    seen = set()
    for location in stores.locations():
        if location.scheme != "s3" or location.bucket in seen:
            continue
        seen.add(location.bucket)
        found = look_at_service(location, stores.checksums)
        part = f"bucket {location.bucket}"
        if found.names_bucket:
            yield wrong(
                part,
                f"AWS_ENDPOINT_URL ({found.endpoint}) holds the name of the bucket, which is added "
                "by itself; leave it out",
            )
        elif found.region and found.region != found.client_region:
            yield wrong(
                part,
                f"it is in the region {found.region}, and requests are signed for "
                f"{found.client_region}; set AWS_DEFAULT_REGION={found.region}",
            )
        elif found.clock_seconds is not None and abs(found.clock_seconds) > MOST_CLOCK_SECONDS:
            yield wrong(
                part,
                f"the clock of {found.endpoint} differs from this machine's by "
                f"{found.clock_seconds:+.0f} seconds; let both follow a time server, since "
                "signatures are refused from 15 minutes on",
            )
        else:
            yield ok(part, f"region {found.region or found.client_region}, clocks agree")


def _made_at_start(part: str, location: Location, home: Path) -> Finding | None:
    """Return a finding for a folder in the home that the first start will make; otherwise None."""
    if (
        location.scheme == "file"
        and location.folder.is_relative_to(home)
        and not location.folder.exists()
    ):
        return ok(part, f"{location.url} is made at the first start")
    return None


# The queue: whether messages may be received, and whether the bucket sends the right events to it.


CREATED = ("s3:ObjectCreated:*", "s3:ObjectCreated:Put")


def check_queue(settings: Settings) -> Iterator[Finding]:
    """Check that the queue answers and lets us receive and delete messages."""
    if not settings.sqs_queue_url:
        yield ok("queue", "none is set; the listing finds uploads")
        return
    queue = SqsQueue(settings.sqs_queue_url, wait_seconds=0, most_messages=1, most_seconds=5)
    queue.check()
    yield ok("queue", f"{settings.sqs_queue_url} answers, and messages may be received and deleted")


def check_wiring(settings: Settings) -> Iterator[Finding]:
    """Check that the bucket sends the events of the source to the queue."""
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
    advice = (
        f"let it send s3:ObjectCreated:* and s3:ObjectRemoved:* of the prefix {source.prefix!r} "
        "there (`aws s3api put-bucket-notification-configuration`)"
    )
    if not to_queue:
        if targets.get("TopicConfigurations") or "EventBridgeConfiguration" in targets:
            return ok(
                "events", f"{source.bucket} sends them through SNS or EventBridge; not followed"
            )
        return wrong("events", f"{source.bucket} sends none to the queue {name}; {advice}")
    creating = [target for target in to_queue if set(CREATED) & set(target["Events"])]
    if not creating:
        return wrong("events", f"{source.bucket} tells {name} of no uploads; {advice}")
    rules = [_filter(target) for target in creating]
    if not any(source.prefix.startswith(prefix) for prefix, _ in rules):
        prefixes = ", ".join(repr(prefix) for prefix, _ in rules)
        return wrong("events", f"{source.bucket} tells {name} of {prefixes} only; {advice}")
    if all(suffix for prefix, suffix in rules if source.prefix.startswith(prefix)):
        return wrong(
            "events",
            f"{source.bucket} tells {name} of some suffixes only, and others wait for the "
            f"listing; {advice}",
        )
    return ok("events", f"{source.bucket} sends those of {source.prefix!r} to {name}")


def _filter(target: Mapping[str, Any]) -> tuple[str, str]:
    rules = target.get("Filter", {}).get("Key", {}).get("FilterRules", [])
    found = {rule["Name"].lower(): rule["Value"] for rule in rules}
    return found.get("prefix", ""), found.get("suffix", "")
