"""What the catalogue knows of an image, and what it is told: plain records, no database."""

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
    """Tell depth images from photographs: by the key alone, so that the family never changes."""
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
        """What was last made of it; None for an image of which nothing was.

        A rejected image has some when its bytes were archived after it was processed.
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
        """By which everything that was done for the newest upload is found in logs and traces."""
        return trace_id(self.source, self.key, self.announced)

    @property
    def processed_trace_id(self) -> str:
        """The same of the upload that its outputs were made from."""
        return trace_id(self.source, self.key, self.processed or self.announced)


FIELDS = tuple(column.name for column in fields(Image))


def image_of(row: Any) -> Image:
    """The image of a row that has all columns."""
    return Image(**{name: row[name] for name in FIELDS})


@dataclass(frozen=True)
class Content:
    """What an image's row says of its content: enough to say the same of the same bytes.

    Attributes:
        image_id: the row.
        key: of the image.
        sha256: of the bytes that the outputs were made from.
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
    """What became of one upload; written to its row in one statement with the others of its batch.

    Attributes:
        image_id: the row.
        upload: the upload that was read.
        run_id: of the Dagster run; empty where the API did the work.
        state: `ready` or `rejected`; the row stays `pending` when a newer upload was announced.
        outputs: name of output to its record (object name, size, width, height, fingerprint …).
            For a rejection what remains, usually nothing.
        facts: what else is known: frames, orientation, depth bounds, notes.
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
    """What a page of a listing said that the catalogue did not know.

    Attributes:
        new: images seen for the first time, or again after their deletion.
        changed: images whose upload is another than the one announced before.
        unchanged: how many were known as they are.
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
    """Images that wait for another attempt since the last one failed, by the code of the reason.

    Attributes:
        count: How many.
        retry_at: When the first of them is tried again; None: as soon as there is a run for it.
        key: Of one of them.
        reason: Of that one.
    """

    code: str
    count: int
    retry_at: datetime | None
    key: str
    reason: str


def recipe_fingerprint(outputs: Mapping[str, Mapping[str, Any]]) -> str | None:
    """One fingerprint for all that decided a row's outputs; None without any."""
    if not outputs:
        return None
    parts = sorted(f"{name}:{record['fingerprint']}" for name, record in outputs.items())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
