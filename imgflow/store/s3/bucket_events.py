"""S3 event notifications: from bytes of messages to records, without queue, store or Dagster.

Reads the events of S3 and compatible servers, plain or wrapped by SNS or EventBridge. Nobody trusts
what a record says about an object's content: messages come late, twice and in any order. A record
only says that it is time to look at a key.

Receiving messages is in `sqs`; acting on them, in `orchestration.sensing.notifications`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote_plus

from imgflow.store.objects import MOST_KEY_BYTES, is_text

Action = Literal["created", "removed"]

# Objects that a lifecycle rule expires are removed, too.
ACTIONS: Mapping[str, Action] = {
    "ObjectCreated": "created",
    "ObjectRemoved": "removed",
    "LifecycleExpiration": "removed",
}
EVENTBRIDGE: Mapping[str, Action] = {"Object Created": "created", "Object Deleted": "removed"}
TEST_EVENT = "s3:TestEvent"

# Nobody wraps more than EventBridge to SNS to SQS.
MOST_WRAPPERS = 3

HEX = re.compile(r"[0-9A-Fa-f]+")
STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class Record:
    """One event of one object.

    Attributes:
        key: Complete key in the bucket, decoded.
        size: Size in bytes, if the event has it.
        sequencer: Hexadecimal number; of two events of a key, the later one has the greater number.
    """

    action: Action
    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None
    size: int | None = None
    sequencer: str = ""


@dataclass
class Reading:
    """What a message contains.

    Attributes:
        records: Events about objects.
        ignored: How often each other event occurred, by its name.
        unreadable: One reason for each part that could not be read; a message may have both
            records and unreadable parts.
    """

    records: list[Record] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scope:
    """Which objects concern a source: the rule by which it lists them.

    Attributes:
        exclude: Prefixes below `prefix` that are not listed, such as that of the outputs.
    """

    bucket: str
    prefix: str
    exclude: tuple[str, ...] = ()

    def refusal(self, record: Record) -> str | None:
        """Why a record does not concern the source, as ticks report it; None if it does."""
        if record.bucket != self.bucket:
            return "of another bucket"
        if not record.key.startswith(self.prefix):
            return "outside the prefix"
        key = self.key(record)
        if self.exclude and key.startswith(self.exclude):
            return "of outputs"
        if is_folder_marker(key, record.size):
            return "of folder markers"
        # No database stores NUL in text, and no HTTP client can request the others.
        if "\0" in key or record.key in (".", ".."):
            return "of keys that are never listed"
        return None

    def key(self, record: Record) -> str:
        """The record's key below the source's prefix."""
        return record.key[len(self.prefix) :]


class Unreadable(ValueError):
    """A part of a message is malformed; the text says how."""


def is_folder_marker(key: str, size: int | None) -> bool:
    """Whether an object only stands for a folder; an unknown size does not count as zero."""
    return not key or (key.endswith("/") and size == 0)


def read_message(body: bytes) -> Reading:
    """Read the body of a message; never raises."""
    reading = Reading()
    try:
        _read_event(_json(body), reading, MOST_WRAPPERS)
    except Unreadable as problem:
        reading.unreadable.append(str(problem))
    return reading


def newest_by_key(records: Iterable[Record]) -> dict[str, Record]:
    """The latest record of each key: by sequencer if both records have one, else by arrival."""
    newest: dict[str, Record] = {}
    for record in records:
        known = newest.get(record.key)
        if known is None or not happened_before(record, known):
            newest[record.key] = record
    return newest


def happened_before(one: Record, other: Record) -> bool:
    """Whether the sequencers say so; they are numbers of any length, so they are zero-padded."""
    width = max(len(one.sequencer), len(other.sequencer))
    if not one.sequencer or not other.sequencer:
        return False
    return one.sequencer.zfill(width) < other.sequencer.zfill(width)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise Unreadable("JSON that is nested too deeply") from None
    except ValueError as error:  # also for an integer of thousands of digits
        raise Unreadable(f"no JSON: {error}") from None


def _read_event(event: Any, reading: Reading, wrappers: int) -> None:
    if not isinstance(event, dict):
        raise Unreadable(f"JSON, but {_kind(event)} instead of an object")
    if event.get("Event") == TEST_EVENT:
        reading.ignored[TEST_EVENT] += 1
    elif isinstance(event.get("Records"), list):
        for number, record in enumerate(event["Records"], 1):
            _read_record(record, number, reading)
    elif "detail-type" in event:
        _read_eventbridge(event, reading)
    elif isinstance(event.get("Message"), str) and event.get("Type", "Notification") in (
        "Notification",
    ):
        if not wrappers:
            raise Unreadable("wrapped in SNS envelopes over and over")
        _read_event(_json(event["Message"].encode("utf-8", "replace")), reading, wrappers - 1)
    elif event.get("Type") in ("SubscriptionConfirmation", "UnsubscribeConfirmation"):
        raise Unreadable(f"SNS asks for a {event['Type']}; confirm it at its SubscribeURL")
    else:
        raise Unreadable("JSON, but neither an event of S3 nor one wrapped by SNS or EventBridge")


def _read_record(record: Any, number: int, reading: Reading) -> None:
    """Read one record; if it is unreadable, the other records of the message still count."""
    try:
        name = _text(record, "eventName").removeprefix("s3:")
        action = ACTIONS.get(name.partition(":")[0])
        source = _text(record, "eventSource")
        if not source.endswith(":s3"):
            raise Unreadable(f"of {source!r}, which is not S3")
        if action is None:
            reading.ignored[name] += 1
            return
        part = _part(record, "s3")
        item = _part(part, "object")
        key = _text(item, "key")
        reading.records.append(
            Record(
                action=action,
                bucket=_text(_part(part, "bucket"), "name"),
                # Ceph sends keys unencoded: decoding would turn a `+` into a space.
                key=_checked(key if source == "ceph:s3" else _form_decoded(key)),
                version_id=_optional_text(item, "versionId"),
                etag=_optional_text(item, "eTag"),
                size=_size(item),
                sequencer=_sequencer(item),
            )
        )
    except Unreadable as problem:
        reading.unreadable.append(f"record {number}: {problem}")


def _read_eventbridge(event: Mapping[str, Any], reading: Reading) -> None:
    name = _text(event, "detail-type")
    action = EVENTBRIDGE.get(name)
    if action is None:
        reading.ignored[name] += 1
        return
    detail = _part(event, "detail")
    item = _part(detail, "object")
    reading.records.append(
        Record(
            action=action,
            bucket=_text(_part(detail, "bucket"), "name"),
            key=_checked(_text(item, "key")),  # unencoded, unlike in S3's own events
            version_id=_optional_text(item, "version-id"),
            etag=_optional_text(item, "etag"),
            size=_size(item),
            sequencer=_sequencer(item),
        )
    )


def _form_decoded(key: str) -> str:
    """Decode a key once: `+` is a space, and some senders write `%20` for it, or `%2F` for `/`."""
    stray = STRAY_PERCENT.search(key)
    if stray:
        raise Unreadable(f"key {_shown(key)} has a % that encodes nothing")
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        raise Unreadable(f"key {_shown(key)} is not UTF-8 when decoded") from None


def _checked(key: str) -> str:
    if not is_text(key):
        raise Unreadable(f"key {_shown(key)} is no Unicode text")
    if not key or len(key.encode()) > MOST_KEY_BYTES:
        raise Unreadable(f"a key of {len(key.encode())} bytes; S3 takes 1 to {MOST_KEY_BYTES}")
    return key


def _part(parent: Any, name: str) -> Mapping[str, Any]:
    part = parent.get(name) if isinstance(parent, dict) else None
    if not isinstance(part, dict):
        raise Unreadable(f"no object {name!r} in it")
    return part


def _text(parent: Any, name: str) -> str:
    text = parent.get(name) if isinstance(parent, dict) else None
    if not isinstance(text, str):
        raise Unreadable(f"no text {name!r} in it")
    return text


def _optional_text(parent: Mapping[str, Any], name: str) -> str | None:
    text = parent.get(name)
    return text if isinstance(text, str) and text else None


def _size(item: Mapping[str, Any]) -> int | None:
    size = item.get("size")
    return size if isinstance(size, int) and not isinstance(size, bool) else None


def _sequencer(item: Mapping[str, Any]) -> str:
    """The sequencer in upper case; empty if there is none, or it is not hexadecimal."""
    text = item.get("sequencer")
    return text.upper() if isinstance(text, str) and HEX.fullmatch(text) else ""


def _shown(key: str) -> str:
    return ascii(key if len(key) <= 200 else f"{key[:200]}…")  # noqa: PLR2004 - a line of a log


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
