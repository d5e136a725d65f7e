"""What the catalogue stores about an image and what it is given to store: plain records, no SQL."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

from imgflow.depth.readers.registry import is_depth_key
from imgflow.observability.trace_records import trace_id
from imgflow.store.objects import SourceObject

Kind = Literal["photo", "depth"]
State = Literal["pending", "ready", "rejected", "deleted"]


def kind_of(key: str) -> Kind:
    """Whether a key is of a depth image or a photograph; the key alone decides, so it is final."""
    return "depth" if is_depth_key(key) else "photo"


@dataclass(frozen=True)
class Image:
    """A row of the table `images`."""

    id: int
    source: str
    key: str
    kind: Kind
    state: State
    reason: str | None
    reason_code: str | None
    etag: str | None
    version_id: str | None
    size: int | None
    last_modified: datetime | None
    sha256: str | None
    media_type: str | None
    width: int | None
    height: int | None
    mode: str | None
    recipe: str | None
    outputs: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any]
    processed: str | None
    run_id: str | None
    announced: str
    announced_etag: str
    announced_version_id: str | None
    announced_size: int
    announced_last_modified: datetime
    batch: str | None
    attempts: int
    not_before: datetime | None
    unreported: bool
    gone_at: datetime | None
    in_partitions: bool
    created_at: datetime
    updated_at: datetime

    @property
    def content(self) -> Content | None:
        """What its outputs were last made from; None if it was never processed.

        A rejected image has content if its bytes were archived after it was processed.
        """
        if self.sha256 is None:
            return None
        return Content(
            image_id=self.id,
            key=self.key,
            sha256=self.sha256,
            media_type=self.media_type,
            width=self.width,
            height=self.height,
            mode=self.mode,
            outputs=self.outputs,
            facts=self.facts,
        )

    @property
    def newest_upload(self) -> SourceObject:
        """The upload that a listing announced last."""
        return SourceObject(
            key=self.key,
            etag=self.announced_etag,
            version_id=self.announced_version_id,
            size=self.announced_size,
            last_modified=self.announced_last_modified,
        )

    @property
    def trace_id(self) -> str:
        """Id of the newest upload's work in logs and traces."""
        return trace_id(self.source, self.key, self.announced)

    @property
    def processed_trace_id(self) -> str:
        """The same for the upload that its outputs were made from."""
        return trace_id(self.source, self.key, self.processed or self.announced)


FIELDS = tuple(column.name for column in fields(Image))


def image_of(row: Any) -> Image:
    """The image of a row that has all columns."""
    return Image(**{name: row[name] for name in FIELDS})


@dataclass(frozen=True)
class Content:
    """What an image's row says about its content: enough to reuse it for identical bytes.

    Attributes:
        sha256: Hex digest of the bytes that the outputs were made from.
    """

    image_id: int
    key: str
    sha256: str
    media_type: str | None
    width: int | None
    height: int | None
    mode: str | None
    outputs: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """The outcome of one upload; written to its row in one statement with others of its batch.

    Attributes:
        run_id: Id of the Dagster run; empty if the API did the work.
        state: `ready` or `rejected`; the row stays `pending` if a newer upload was announced.
        outputs: Records (object name, size, width, height, fingerprint …) by output name. For a
            rejection those that remain, usually none.
        facts: Everything else: frames, orientation, depth bounds, notes.
    """

    image_id: int
    upload: SourceObject
    state: Literal["ready", "rejected"]
    run_id: str
    recipe: str | None
    sha256: str | None = None
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    reason: str | None = None
    reason_code: str | None = None
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Announcement:
    """What a page of a listing told the catalogue.

    Attributes:
        new: Images seen for the first time, or for the first time since their deletion.
        changed: Images whose upload is not the one announced before.
        unchanged: Number of images whose upload was known.
    """

    new: list[Image]
    changed: list[Image]
    unchanged: int


@dataclass(frozen=True)
class Count:
    """How many images of one kind are in one state."""

    kind: Kind
    state: State
    count: int


@dataclass(frozen=True)
class Failing:
    """Images that wait for a retry because their last attempt failed, for one reason code.

    Attributes:
        retry_at: When the first of them is retried; None means as soon as a run is available.
        key: Key of an example among them.
        reason: Reason of that example.
    """

    code: str
    count: int
    retry_at: datetime | None
    key: str
    reason: str


def recipe_fingerprint(outputs: Mapping[str, Mapping[str, Any]]) -> str | None:
    """One fingerprint for everything that determined a row's outputs; None if it has none."""
    if not outputs:
        return None
    parts = sorted(f"{name}:{record['fingerprint']}" for name, record in outputs.items())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
